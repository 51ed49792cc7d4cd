//! Keeps the newest version of each order in any answer.

use super::{expect::state_name, wire::Order};
use crate::acknowledged::Shown;
use stampede_proto::order::v1::OrderState;
use stampede_vocab::OrderId;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// All known orders of the event.
#[derive(Default)]
pub struct Follow {
    orders: Mutex<HashMap<OrderId, Order>>,
    pay_window: watch::Sender<Option<Duration>>,
}

/// Returns whether an order in this state has reached an end. An expired one may still be paid late, which the audit
/// checks.
pub const fn is_end(state: OrderState) -> bool {
    match state {
        OrderState::Fulfilled | OrderState::Expired | OrderState::Cancelled | OrderState::Refunded => true,
        OrderState::Unspecified
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Refunding => false,
    }
}

impl Follow {
    fn orders(&self) -> MutexGuard<'_, HashMap<OrderId, Order>> {
        // A poisoned lock is safe: each order is written whole, and the list of orders repeats what a panic left out.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the order of an answer, unless a newer version of it is known.
    pub fn record(&self, order: &Order) {
        self.note_pay_window(order);
        let mut orders = self.orders();
        let newest = orders.entry(order.order_id).or_insert(*order);
        if order.version > newest.version {
            *newest = *order;
        }
    }

    fn note_pay_window(&self, order: &Order) {
        let Some((payable_since, deadline)) = order.payable_since().zip(order.pay_deadline) else { return };
        self.pay_window.send_if_modified(|window| {
            let is_first = window.is_none();
            *window = window.or(Some(deadline.since(payable_since)));
            is_first
        });
    }

    /// Returns the time to pay, by the first order that was seen waiting for its payment.
    pub async fn pay_window(&self) -> Duration {
        let mut seen = self.pay_window.subscribe();
        let window = seen.wait_for(Option::is_some).await.map(|window| *window);
        window.ok().flatten().expect("the sender lives as long as this, and some window is waited for")
    }

    pub fn states(&self) -> BTreeMap<OrderState, usize> {
        let mut states = BTreeMap::new();
        for order in self.orders().values() {
            *states.entry(order.state).or_default() += 1;
        }
        states
    }

    /// Returns the newest state of each order.
    pub fn shown(&self) -> BTreeMap<OrderId, Shown> {
        let shown = |order: &Order| Shown { state: state_name(order.state).to_owned(), version: order.version };
        self.orders().values().map(|order| (order.order_id, shown(order))).collect()
    }

    /// Returns the orders that have not reached an end.
    pub fn open(&self) -> Vec<Order> {
        self.orders().values().filter(|order| !is_end(order.state)).copied().collect()
    }
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
            fulfill_time: None,
        }
    }

    #[test]
    fn the_newest_counts_whatever_comes_first() {
        let follow = Follow::default();
        follow.record(&order(OrderState::Paying, 2));
        follow.record(&order(OrderState::AwaitingPayment, 1));
        assert_eq!(follow.states(), BTreeMap::from([(OrderState::Paying, 1)]));
        assert_eq!(follow.open().len(), 1);
        follow.record(&order(OrderState::Cancelled, 3));
        let shown = Shown { state: "CANCELLED".to_owned(), version: 3 };
        assert_eq!(follow.shown().into_values().collect::<Vec<_>>(), [shown]);
        assert_eq!(follow.states(), BTreeMap::from([(OrderState::Cancelled, 1)]));
        assert!(follow.open().is_empty());
    }

    #[tokio::test]
    async fn the_pay_window_is_that_of_the_first_order_that_waits_for_its_payment() {
        let follow = Follow::default();
        let window = Duration::from_secs(6);
        let payable = order(OrderState::AwaitingPayment, 1);
        let pay_deadline = Some(payable.update_time.plus(window));
        // Declined since: its first payable time is unknown.
        follow.record(&Order { version: 3, pay_deadline, ..payable });
        assert_eq!(*follow.pay_window.borrow(), None);
        follow.record(&Order { pay_deadline, ..payable });
        assert_eq!(follow.pay_window().await, window);
    }
}
