//! The operator's list of an event's orders. It includes orders that nobody watches: those that are never paid, or
//! whose buyer never had an answer.

use super::{
    client::{Call, Client, Failure},
    follow::Follow,
    wire::{Order, OrderPage},
};
use http::HeaderValue;
use stampede_proto::order::v1::OrderState;
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;
use tokio::time::sleep;

/// Most orders of a page.
const PAGE_SIZE: usize = 100;
/// Time between two polls of the list while some orders have not ended.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Returns all orders of the event, by arrival.
pub async fn read(operator: &Client, token: &HeaderValue, event: EventId) -> Result<Vec<Order>, Failure> {
    let mut orders = Vec::new();
    let mut page_token = String::new();
    loop {
        let path = format!("/v1/orders?event_id={event}&page_size={PAGE_SIZE}&page_token={page_token}");
        let page: OrderPage = operator.call(&Call::get(path).bearing(token)).await?;
        orders.extend(page.orders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(orders);
        }
    }
}

/// Polls the list until all orders have ended, and returns it. The deadline of the whole simulation bounds it. The
/// buyers must be done.
pub async fn until_all_ended(operator: &Client, token: &HeaderValue, event: EventId, follow: &Follow) -> Vec<Order> {
    loop {
        let listed = read(operator, token, event).await;
        match &listed {
            Ok(orders) => orders.iter().for_each(|order| follow.record(order)),
            Err(failure) => tracing::warn!(error.cause = failure.reason(), "the list of orders cannot be read"),
        }
        match (listed, follow.open()) {
            (Ok(orders), open) if open.is_empty() => return orders,
            (_, open) => sleep(time_to_next_read(&open, Timestamp::now())).await,
        }
    }
}

/// Returns the pause before the next read. Orders that wait for their payment end at their deadline, so no earlier than
/// the last of these.
fn time_to_next_read(open: &[Order], now: Timestamp) -> Duration {
    let waiting = open.iter().filter(|order| order.state == OrderState::AwaitingPayment);
    let last_deadline = waiting.filter_map(|order| order.pay_deadline).max();
    last_deadline.map_or(Duration::ZERO, |deadline| deadline.since(now)) + POLL_INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::OrderId;

    fn open(state: OrderState, pay_deadline: Timestamp) -> Order {
        let at = Timestamp::from_micros(0);
        Order {
            order_id: OrderId::from_uuid(uuid::Uuid::nil()),
            state,
            arrival: 1,
            version: 2,
            create_time: at,
            update_time: at,
            pay_deadline: Some(pay_deadline),
            fulfill_time: None,
        }
    }

    #[test]
    fn the_list_is_read_again_once_the_last_order_that_nobody_pays_is_overdue() {
        let now = Timestamp::from_micros(60_000_000);
        let seconds = Duration::from_secs;
        let waiting = |after| open(OrderState::AwaitingPayment, now.plus(seconds(after)));
        assert_eq!(time_to_next_read(&[waiting(3), waiting(7), waiting(5)], now), seconds(7) + POLL_INTERVAL);
        assert_eq!(time_to_next_read(&[open(OrderState::AwaitingPayment, now.minus(seconds(3)))], now), POLL_INTERVAL);
        assert_eq!(time_to_next_read(&[open(OrderState::Refunding, now.plus(seconds(7)))], now), POLL_INTERVAL);
        assert_eq!(time_to_next_read(&[], now), POLL_INTERVAL);
    }
}
