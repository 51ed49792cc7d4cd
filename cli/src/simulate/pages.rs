//! The operator's list of an event's orders, page by page in order of arrival, reading again only what may have changed.
//!
//! A page costs the mesh a hundred orders each time, so in a rush most of the load would be this list. But orders move
//! about as they came: change travels along the list. A page that has changed has the next one read at once; one that has
//! not is left alone for longer and longer.

use super::{
    client::{Call, Client, Failure},
    follow::{Follow, is_end},
    wire::{Order, OrderPage},
};
use http::HeaderValue;
use stampede_vocab::EventId;
use std::time::Duration;
use tokio::time::Instant;

/// Most orders a page.
const PAGE_SIZE: usize = 100;
/// How soon a page is read again that has just changed.
const SHORTEST_WAIT: Duration = Duration::from_millis(150);
/// How soon a page is read again at least, where there are few.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// The same where there are many.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
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
    /// When to read it again; never, once all its orders have ended.
    due: Option<Instant>,
}

impl Page {
    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// The page as it is now, after a reading that took so long, among so many pages.
    fn after(known: Option<&Self>, token: String, read: OrderPage, took: Duration, pages: usize) -> Self {
        let versions = read.orders.iter().map(|order| order.version).sum();
        let longest = (took * pages as u32 * IDLE_SHARE).clamp(LONG_WAIT, LONGEST_WAIT);
        let wait = match known {
            Some(known) if known.versions == versions => (known.wait * 2).min(longest),
            _ => SHORTEST_WAIT,
        };
        let is_last = read.next_page_token.is_empty();
        let is_open = is_last || read.orders.iter().any(|order: &Order| !is_end(order.state));
        // The last page is where new orders turn up.
        let wait = if is_last { SHORTEST_WAIT } else { wait };
        let due = is_open.then(|| Instant::now() + wait);
        Self { token, next: read.next_page_token, versions, wait, due }
    }
}

impl Pages {
    /// Reads what is due, and notes it.
    ///
    /// An order may be written after later arrivals, so that pages shift: a page whose token is not where the one before
    /// it ends now is read in any case.
    pub async fn read(
        &mut self,
        operator: &Client,
        token: &HeaderValue,
        event: EventId,
        follow: &Follow,
    ) -> Result<(), Failure> {
        let mut page_token = String::new();
        for index in 0.. {
            match self.0.get(index) {
                Some(page) if page.token == page_token && !page.is_due() => page_token.clone_from(&page.next),
                _ => {
                    let path = format!("/v1/orders?event_id={event}&page_size={PAGE_SIZE}&page_token={page_token}");
                    let began = Instant::now();
                    let read: OrderPage = operator.call(&Call::get(path).bearing(token)).await?;
                    follow.listed(&read.orders);
                    page_token = self.note(index, page_token, read, began.elapsed());
                }
            }
            if page_token.is_empty() {
                self.0.truncate(index + 1);
                break;
            }
        }
        Ok(())
    }

    /// Notes what was read of a page, and returns the token of the next one.
    fn note(&mut self, index: usize, token: String, read: OrderPage, took: Duration) -> String {
        let known = self.0.get(index).filter(|page| page.token == token);
        let page = Page::after(known, token, read, took, self.0.len());
        let has_changed = page.wait == SHORTEST_WAIT;
        let next = page.next.clone();
        if index < self.0.len() {
            self.0[index] = page;
        } else {
            self.0.push(page);
        }
        if let Some(neighbour) = self.0.get_mut(index + 1).filter(|page| has_changed && page.due.is_some()) {
            neighbour.due = Some(Instant::now());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_proto::order::v1::OrderState;
    use stampede_vocab::{OrderId, Timestamp};

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
