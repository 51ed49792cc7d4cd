//! Tells every buyer where their order is, from the operator's list of the event's orders: one reader for the whole crowd,
//! where a poll by each buyer would be most of the load.

use super::{client::Client, pages::Pages, wire::Order};
use http::HeaderValue;
use stampede_proto::order::v1::OrderState;
use stampede_vocab::{EventId, OrderId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// Pause between two looks at the list: as long as the last one took, but within these bounds. Following is to be a
/// small part of the load.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An accepted order that the list does not show for so long was slipped into a page that was over.
const LIST_LAG: Duration = Duration::from_secs(2);

/// The newest that is known of an order.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The order.
    pub order: Order,
    /// When it became known, and whether the list has shown it.
    told_at: Instant,
    /// The page of the list that has shown it.
    page: Option<usize>,
}

/// The orders that are known, and what is to be looked at again.
#[derive(Default)]
struct Book {
    views: HashMap<OrderId, watch::Sender<View>>,
    /// Pages with orders of which their buyers were told something newer.
    stirred: BTreeSet<usize>,
}

/// All orders of the event that are known.
#[derive(Default)]
pub struct Follow {
    book: Mutex<Book>,
    pay_window: watch::Sender<Option<Duration>>,
}

/// Whether an order in this state has reached an end. An expired one may still be paid late; that is left to the audit.
pub const fn is_end(state: OrderState) -> bool {
    match state {
        OrderState::Fulfilled
        | OrderState::Rejected
        | OrderState::Expired
        | OrderState::Cancelled
        | OrderState::Refunded => true,
        OrderState::Unspecified
        | OrderState::Pending
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Refunding => false,
    }
}

impl Follow {
    fn book(&self) -> MutexGuard<'_, Book> {
        // What was changed before a panic is true, and what was not is found at the next look.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buyer was told of an order; yields what becomes of it.
    pub fn told(&self, order: &Order) -> watch::Receiver<View> {
        let mut book = self.book();
        let (told, is_newer) = note(&mut book.views, order, None);
        book.stirred.extend(told.page.filter(|_| is_newer));
        book.views[&order.order_id].subscribe()
    }

    /// A buyer's request for this order failed: whether it has taken effect only the list will tell.
    pub fn doubted(&self, order: OrderId) {
        let mut book = self.book();
        let page = book.views.get(&order).and_then(|view| view.borrow().page);
        book.stirred.extend(page);
    }

    /// This page of the list has shown these orders. Returns them as they are known now: a buyer may have been told
    /// something newer.
    pub fn listed(&self, page: usize, orders: &[Order]) -> Vec<Order> {
        let mut book = self.book();
        let newest = orders.iter().map(|order| note(&mut book.views, order, Some(page)).0.order).collect();
        drop(book);
        self.note_pay_window(orders);
        newest
    }

    /// The pages with orders of which their buyers were told something newer since the last call.
    pub fn stirred(&self) -> BTreeSet<usize> {
        std::mem::take(&mut self.book().stirred)
    }

    fn note_pay_window(&self, orders: &[Order]) {
        if self.pay_window.borrow().is_none() {
            let seen = orders.iter().find_map(|order| Some(order.pay_deadline?.since(order.payable_since()?)));
            self.pay_window.send_if_modified(|window| {
                *window = seen;
                seen.is_some()
            });
        }
    }

    /// How long an order may wait for its payment, by the first one that was listed as waiting for it.
    pub async fn pay_window(&self) -> Duration {
        let mut seen = self.pay_window.subscribe();
        let window = seen.wait_for(Option::is_some).await.map(|window| *window);
        window.ok().flatten().expect("the sender lives as long as this, and some window is waited for")
    }

    /// How many orders are in which state.
    pub fn states(&self) -> BTreeMap<OrderState, usize> {
        let mut states = BTreeMap::new();
        for view in self.book().views.values() {
            *states.entry(view.borrow().order.state).or_default() += 1;
        }
        states
    }

    /// How many orders have not reached an end.
    pub fn unfinished(&self) -> usize {
        self.book().views.values().filter(|view| !is_end(view.borrow().order.state)).count()
    }

    /// Every order that the list has shown.
    pub fn orders(&self) -> Vec<Order> {
        let book = self.book();
        let views = book.views.values().map(|view| *view.borrow());
        views.filter(|view| view.page.is_some()).map(|view| view.order).collect()
    }

    fn misses_some(&self, lag: Duration) -> bool {
        self.book().views.values().any(|view| {
            let view = view.borrow();
            view.page.is_none() && view.told_at.elapsed() > lag
        })
    }

    /// Reads the list again and again, until dropped.
    pub async fn run(&self, operator: &Client, token: &HeaderValue, event: EventId) {
        let mut pages = Pages::default();
        let mut lag = LIST_LAG;
        let mut read_anew = Instant::now();
        loop {
            let began = Instant::now();
            match pages.read(operator, token, event, self).await {
                Ok(true) if read_anew.elapsed() > lag && self.misses_some(lag) => {
                    pages = Pages::default();
                    read_anew = Instant::now();
                }
                Ok(_) => {}
                Err(failure) => tracing::warn!(reason = failure.reason(), "the list of orders cannot be read"),
            }
            // Reading all pages anew is what takes longest, and must not be all that is done.
            lag = LIST_LAG.max(began.elapsed() * 4).max(lag / 2);
            sleep(began.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// Waits until every order that is known has reached an end.
    pub async fn all_ended(&self) {
        while self.unfinished() > 0 {
            sleep(SHORTEST_PAUSE).await;
        }
    }
}

/// Notes what was told of an order or what a page has shown of it. Returns the newest that is known, and whether this
/// is it.
fn note(views: &mut HashMap<OrderId, watch::Sender<View>>, order: &Order, page: Option<usize>) -> (View, bool) {
    let fresh = View { order: *order, told_at: Instant::now(), page };
    let Some(view) = views.get(&order.order_id) else {
        views.insert(order.order_id, watch::Sender::new(fresh));
        return (fresh, true);
    };
    let is_newer = view.send_if_modified(|view| {
        view.page = page.or(view.page);
        let newer = order.version > view.order.version;
        if newer {
            view.order = *order;
        }
        newer
    });
    (*view.borrow(), is_newer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Timestamp;

    fn order(state: OrderState, version: i64) -> Order {
        let at = Timestamp::from_micros(version);
        let order_id = OrderId::from_uuid(uuid::Uuid::from_u128(1));
        Order {
            order_id,
            state,
            arrival: 1,
            version,
            create_time: at,
            update_time: at,
            pay_deadline: None,
            fulfilled_at: None,
        }
    }

    #[test]
    fn a_buyer_sees_what_the_list_has_shown_before_and_what_it_shows_after() {
        let follow = Follow::default();
        follow.listed(0, &[order(OrderState::AwaitingPayment, 2)]);
        let mut view = follow.told(&order(OrderState::Pending, 1));
        assert_eq!(view.borrow_and_update().order.state, OrderState::AwaitingPayment);
        follow.listed(0, &[order(OrderState::Cancelled, 3)]);
        assert!(view.has_changed().unwrap());
        assert_eq!((view.borrow().order.state, follow.unfinished()), (OrderState::Cancelled, 0));
    }

    #[tokio::test]
    async fn the_pay_window_is_that_of_the_first_order_that_waits_for_its_payment() {
        let follow = Follow::default();
        let window = Duration::from_secs(6);
        let payable = order(OrderState::AwaitingPayment, 2);
        let pay_deadline = Some(payable.update_time.plus(window));
        follow.listed(0, &[order(OrderState::Pending, 1)]);
        // Declined since: when it could first be paid is not known any more.
        follow.listed(0, &[Order { version: 4, pay_deadline, ..payable }]);
        assert_eq!(*follow.pay_window.borrow(), None);
        follow.listed(0, &[Order { pay_deadline, ..payable }]);
        assert_eq!(follow.pay_window().await, window);
    }

    #[test]
    fn a_page_is_stirred_by_what_the_buyer_of_a_listed_order_is_told() {
        let follow = Follow::default();
        drop(follow.told(&order(OrderState::Pending, 1)));
        assert!(follow.stirred().is_empty(), "it is on no page yet");
        follow.listed(7, &[order(OrderState::AwaitingPayment, 2)]);
        drop(follow.told(&order(OrderState::Paying, 3)));
        assert_eq!(follow.stirred(), BTreeSet::from([7]));
        drop(follow.told(&order(OrderState::Paying, 3)));
        assert!(follow.stirred().is_empty(), "nothing new");
        follow.doubted(order(OrderState::Paying, 3).order_id);
        assert_eq!(follow.stirred(), BTreeSet::from([7]), "a request was lost: who knows what it did");
        let newest = follow.listed(7, &[order(OrderState::AwaitingPayment, 2)]);
        assert_eq!(newest[0].state, OrderState::Paying, "the list was read before the buyer was told");
    }

    #[test]
    fn an_order_that_was_only_told_is_not_listed() {
        let follow = Follow::default();
        drop(follow.told(&order(OrderState::Pending, 1)));
        assert!(follow.orders().is_empty());
        assert_eq!((follow.states()[&OrderState::Pending], follow.unfinished()), (1, 1));
    }
}
