//! The operator's list of an event's orders, page by page in order of arrival, reading again only what may have changed.
//!
//! A page costs the mesh a hundred orders each time, so in a rush most of the load would be this list. But an order that
//! waits for its payment moves only once its buyer has acted, of which the buyer is told, or at its deadline. The others
//! move about as they came: change travels along the list. A page that has changed has the next one read at once; one
//! that has not is left alone for longer and longer.

use super::{
    client::{Call, Client, Failure},
    follow::{Follow, is_end},
    wire::{Order, OrderPage},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::HeaderValue;
use stampede_proto::order::v1::OrderState;
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// Most orders a page.
const PAGE_SIZE: usize = 100;
/// How soon a page is read again that has just changed.
const SHORTEST_WAIT: Duration = Duration::from_millis(150);
/// The same where there are many: most orders of a page are to have moved on by then.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// More pages than that are many.
const MANY: usize = 20;
/// How long after its deadline an order has expired: the sweep has to find it.
const EXPIRY_TAKES: Duration = Duration::from_millis(500);
/// How soon a page is read again at least, where there are few.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// The same where there are many.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Pages that are asked for at a time.
const CONCURRENT_READS: usize = 4;
/// Most known pages of a round, and most pages behind them: new orders may come faster than their pages can be read one
/// after the other, and then the known ones must not be left waiting.
const MAX_KNOWN_PAGES: usize = 32;
const MAX_NEW_PAGES: usize = 16;
/// Pages that do not change may have one part in so many of the reader's time.
const IDLE_SHARE: u32 = 4;

/// The pages as they were when they were read last.
#[derive(Default)]
pub struct Pages(Vec<Page>);

struct Page {
    token: String,
    next: String,
    /// Sum of the orders' versions: it grows with every change.
    versions: i64,
    wait: Duration,
    /// Whether orders on it move by themselves.
    moves: bool,
    /// When to read it again; never, once all its orders have ended.
    due: Option<Instant>,
}

/// When an order may have moved by itself: at any time, at its deadline, or never.
enum Next {
    AnyTime,
    At(Timestamp),
    Never,
}

impl Next {
    fn of(order: &Order, now: Timestamp) -> Self {
        match order.pay_deadline {
            _ if is_end(order.state) => Self::Never,
            Some(deadline) if order.state == OrderState::AwaitingPayment && deadline > now => Self::At(deadline),
            _ => Self::AnyTime,
        }
    }
}

impl Page {
    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// The page as it is now, with its orders as they are known, after a reading that took so long, among so many pages.
    fn after(known: Option<&Self>, token: String, read: OrderPage, took: Duration, pages: usize) -> Self {
        let versions = read.orders.iter().map(|order| order.version).sum();
        let shortest = if pages > MANY { SHORT_WAIT } else { SHORTEST_WAIT };
        let longest = (took * pages as u32 * IDLE_SHARE).clamp(LONG_WAIT, LONGEST_WAIT);
        let wait = match known {
            Some(known) if known.versions == versions => (known.wait * 2).min(longest),
            _ => shortest,
        };
        // The last page is where new orders turn up.
        let is_last = read.next_page_token.is_empty();
        let wait = if is_last { SHORTEST_WAIT } else { wait };
        let now = Timestamp::now();
        let nexts: Vec<Next> = read.orders.iter().map(|order| Next::of(order, now)).collect();
        let moves = is_last || nexts.iter().any(|next| matches!(next, Next::AnyTime));
        let deadlines =
            nexts.iter().filter_map(|next| if let Next::At(deadline) = next { Some(*deadline) } else { None });
        let deadline = deadlines.min().map(|at| at.since(now) + EXPIRY_TAKES);
        let next_in = if moves { Some(deadline.map_or(wait, |deadline| deadline.min(wait))) } else { deadline };
        let due = next_in.map(|next_in| Instant::now() + next_in);
        Self { token, next: read.next_page_token, versions, wait, moves, due }
    }

    /// A buyer was told something of an order on it, so it is read soon.
    fn stir(&mut self) {
        let soon = Instant::now() + SHORT_WAIT;
        self.moves = true;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }
}

/// Where pages are read, and who is told of them.
struct List<'a> {
    operator: &'a Client,
    token: &'a HeaderValue,
    event: EventId,
    follow: &'a Follow,
}

impl List<'_> {
    /// Reads one page, with its orders as they are known, and tells how long that took.
    async fn page(&self, index: usize, page_token: &str) -> Result<(OrderPage, Duration), Failure> {
        let path = format!("/v1/orders?event_id={}&page_size={PAGE_SIZE}&page_token={page_token}", self.event);
        let began = Instant::now();
        let mut read: OrderPage = self.operator.call(&Call::get(path).bearing(self.token)).await?;
        read.orders = self.follow.listed(index, &read.orders);
        Ok((read, began.elapsed()))
    }
}

impl Pages {
    /// Reads some of what is due, and notes it. Returns whether that went to the end of the list.
    ///
    /// An order may be written after later arrivals, so that pages shift: a page whose token is not where the one before
    /// it ends now is read in any case.
    pub async fn read(
        &mut self,
        operator: &Client,
        token: &HeaderValue,
        event: EventId,
        follow: &Follow,
    ) -> Result<bool, Failure> {
        for index in follow.stirred() {
            if let Some(page) = self.0.get_mut(index) {
                page.stir();
            }
        }
        let list = List { operator, token, event, follow };
        self.read_due(&list).await?;
        let mut page_token = String::new();
        let mut new = 0;
        for index in 0.. {
            match self.0.get(index) {
                Some(page) if page.token == page_token => page_token.clone_from(&page.next),
                _ if new == MAX_NEW_PAGES => return Ok(false),
                _ => {
                    new += 1;
                    let (read, took) = list.page(index, &page_token).await?;
                    page_token = self.note(index, page_token, read, took);
                }
            }
            if page_token.is_empty() {
                self.0.truncate(index + 1);
                break;
            }
        }
        Ok(true)
    }

    /// Reads the pages that have been due for longest, some at a time: when the mesh is busy an answer takes long, and pages are many.
    async fn read_due(&mut self, list: &List<'_>) -> Result<(), Failure> {
        let due = self.0.iter().enumerate().filter(|(_, page)| page.is_due());
        let mut due: Vec<_> = due.map(|(index, page)| (page.due, index, page.token.clone())).collect();
        due.sort_unstable();
        let reads = due.into_iter().take(MAX_KNOWN_PAGES).map(|(_, index, token)| async move {
            let read = list.page(index, &token).await;
            read.map(|(read, took)| (index, token, read, took))
        });
        let mut reads = stream::iter(reads).buffered(CONCURRENT_READS);
        while let Some((index, token, read, took)) = reads.try_next().await? {
            self.note(index, token, read, took);
        }
        Ok(())
    }

    /// Notes what was read of a page, and returns the token of the next one.
    fn note(&mut self, index: usize, token: String, read: OrderPage, took: Duration) -> String {
        let known = self.0.get(index).filter(|page| page.token == token);
        let page = Page::after(known, token, read, took, self.0.len());
        let has_changed = known.is_none_or(|known| known.versions != page.versions);
        let next = page.next.clone();
        if index < self.0.len() {
            self.0[index] = page;
        } else {
            self.0.push(page);
        }
        if let Some(neighbour) = self.0.get_mut(index + 1).filter(|page| has_changed && page.moves) {
            neighbour.due = Some(Instant::now());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::OrderId;

    const TOOK: Duration = Duration::from_millis(10);

    fn read(states: &[(OrderState, i64)], next: &str) -> OrderPage {
        let at = Timestamp::from_micros(0);
        let order_id = OrderId::from_uuid(uuid::Uuid::nil());
        let order = |(state, version): &(OrderState, i64)| Order {
            order_id,
            state: *state,
            arrival: 1,
            version: *version,
            create_time: at,
            update_time: at,
            pay_deadline: None,
            fulfilled_at: None,
        };
        OrderPage { orders: states.iter().map(order).collect(), next_page_token: next.to_owned() }
    }

    fn waits(pages: &Pages) -> Vec<Option<Duration>> {
        pages.0.iter().map(|page| page.due.map(|_| page.wait)).collect()
    }

    #[test]
    fn a_page_is_left_alone_once_all_its_orders_have_ended_but_for_the_last() {
        let mut pages = Pages::default();
        pages.note(0, String::new(), read(&[(OrderState::Fulfilled, 4), (OrderState::Expired, 3)], "b"), TOOK);
        pages.note(1, "b".into(), read(&[(OrderState::Fulfilled, 4)], ""), TOOK);
        assert_eq!(waits(&pages), [None, Some(SHORTEST_WAIT)]);
    }

    #[test]
    fn a_page_that_does_not_change_is_read_ever_less_often() {
        let mut pages = Pages::default();
        for _ in 0..3 {
            pages.note(0, String::new(), read(&[(OrderState::Paying, 3)], "b"), TOOK);
        }
        assert_eq!(waits(&pages), [Some(SHORTEST_WAIT * 4)]);
        for _ in 0..9 {
            pages.note(0, String::new(), read(&[(OrderState::Paying, 3)], "b"), TOOK);
        }
        assert_eq!(waits(&pages), [Some(LONG_WAIT)]);
        pages.note(0, String::new(), read(&[(OrderState::Fulfilled, 4), (OrderState::Paying, 3)], "b"), TOOK);
        assert_eq!(waits(&pages), [Some(SHORTEST_WAIT)]);
    }

    fn waiting_until(pay_deadline: Timestamp) -> OrderPage {
        let mut page = read(&[(OrderState::AwaitingPayment, 2), (OrderState::Fulfilled, 4)], "b");
        page.orders[0].pay_deadline = Some(pay_deadline);
        page
    }

    #[test]
    fn a_page_of_orders_that_wait_for_their_buyers_is_read_at_the_first_deadline_or_when_one_has_acted() {
        let (now, minute) = (Timestamp::now(), Duration::from_secs(60));
        let mut pages = Pages::default();
        pages.note(0, String::new(), waiting_until(now.plus(minute)), TOOK);
        let wait = pages.0[0].due.unwrap() - Instant::now();
        assert!(wait > minute - LONG_WAIT && wait <= minute + EXPIRY_TAKES, "{wait:?}");
        pages.0[0].stir();
        assert!(pages.0[0].due.unwrap() <= Instant::now() + SHORT_WAIT);
    }

    #[test]
    fn a_page_that_is_left_alone_is_read_at_a_deadline_all_the_same() {
        let soon = LONG_WAIT;
        let mut pages = Pages::default();
        for _ in 0..9 {
            let mut read = waiting_until(Timestamp::now().plus(soon));
            read.orders[1].state = OrderState::Paid;
            pages.note(0, String::new(), read, LONG_WAIT);
        }
        assert!(pages.0[0].due.unwrap() <= Instant::now() + soon + EXPIRY_TAKES, "{:?}", pages.0[0].wait);
    }

    #[test]
    fn an_order_that_is_over_its_deadline_may_expire_at_any_time() {
        let mut pages = Pages::default();
        pages.note(0, String::new(), waiting_until(Timestamp::now().minus(LONG_WAIT)), TOOK);
        assert!(pages.0[0].due.unwrap() <= Instant::now() + SHORTEST_WAIT);
    }

    #[test]
    fn change_wakes_the_next_page() {
        let mut pages = Pages::default();
        for _ in 0..5 {
            pages.note(0, String::new(), read(&[(OrderState::Pending, 1)], "b"), TOOK);
            pages.note(1, "b".into(), read(&[(OrderState::Pending, 1)], "c"), TOOK);
        }
        assert!(!pages.0[1].is_due());
        pages.note(0, String::new(), read(&[(OrderState::AwaitingPayment, 2)], "b"), TOOK);
        assert!(pages.0[1].is_due());
    }
}
