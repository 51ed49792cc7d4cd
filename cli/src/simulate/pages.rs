//! The operator's list of an event's orders, page by page in order of arrival, reading again only what may have changed.

use super::{
    client::{Call, Client, Failure},
    follow::{Follow, is_end},
    wire::{Order, OrderPage},
};
use http::HeaderValue;
use stampede_proto::order::v1::OrderState;
use stampede_vocab::EventId;
use std::time::Duration;
use tokio::time::Instant;

/// Most orders a page.
const PAGE_SIZE: usize = 100;
/// How often a page is read on which all open orders wait for their buyers: they move by themselves only to expire.
const IDLE_PERIOD: Duration = Duration::from_secs(1);

/// The pages as they were when they were read last.
#[derive(Default)]
pub struct Pages(Vec<Page>);

struct Page {
    token: String,
    next: String,
    due: Due,
}

/// When a page is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Always,
    After(Instant),
    Never,
}

impl Due {
    fn of(orders: &[Order], is_last: bool, now: Instant) -> Self {
        let open = || orders.iter().map(|order| order.state).filter(|state| !is_end(*state));
        if is_last || open().any(|state| state != OrderState::AwaitingPayment) {
            Self::Always
        } else if open().next().is_some() {
            Self::After(now + IDLE_PERIOD)
        } else {
            Self::Never
        }
    }

    fn is_over(self, now: Instant) -> bool {
        match self {
            Self::Always => true,
            Self::After(when) => when <= now,
            Self::Never => false,
        }
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
                Some(page) if page.token == page_token && !page.due.is_over(Instant::now()) => {
                    page_token.clone_from(&page.next);
                }
                _ => page_token = self.fetch(index, page_token, operator, token, event, follow).await?,
            }
            if page_token.is_empty() {
                self.0.truncate(index + 1);
                break;
            }
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        index: usize,
        page_token: String,
        operator: &Client,
        token: &HeaderValue,
        event: EventId,
        follow: &Follow,
    ) -> Result<String, Failure> {
        let path = format!("/v1/orders?event_id={event}&page_size={PAGE_SIZE}&page_token={page_token}");
        let read: OrderPage = operator.call(&Call::get(path).bearing(token)).await?;
        follow.listed(&read.orders);
        let next = read.next_page_token;
        let due = Due::of(&read.orders, next.is_empty(), Instant::now());
        let page = Page { token: page_token, next: next.clone(), due };
        match self.0.get_mut(index) {
            Some(known) => *known = page,
            None => self.0.push(page),
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{OrderId, Timestamp};

    fn due(states: &[OrderState], is_last: bool) -> Due {
        let at = Timestamp::from_micros(0);
        let order_id = OrderId::from_uuid(uuid::Uuid::nil());
        let order = |state: &OrderState| Order {
            order_id,
            state: *state,
            arrival: 1,
            version: 1,
            create_time: at,
            update_time: at,
            fulfilled_at: None,
        };
        Due::of(&states.iter().map(order).collect::<Vec<_>>(), is_last, Instant::now())
    }

    #[test]
    fn a_page_is_left_alone_once_all_its_orders_have_ended() {
        use OrderState::{AwaitingPayment, Cancelled, Fulfilled, Paying};
        assert_eq!(due(&[Fulfilled, Cancelled], false), Due::Never);
        assert_eq!(due(&[Fulfilled, Cancelled], true), Due::Always);
        assert_eq!(due(&[Fulfilled, Paying, AwaitingPayment], false), Due::Always);
        assert!(matches!(due(&[Fulfilled, AwaitingPayment], false), Due::After(_)));
    }
}
