//! Looks up the orders of old holds at the order service: one page of ids a call, a pause between pages, and each hold
//! once a pass, so that many orders waiting for their payment cost little.

use crate::{
    domain::{EndedOrder, OrderEnd},
    usecase::{HeldPage, ReturnOrphans},
};
use stampede_chassis::MeshChannel;
use stampede_proto::order::v1::{
    LookUpOrdersRequest, OrderState, OrderStatus, order_service_client::OrderServiceClient,
};
use stampede_service::Worker;
use stampede_vocab::{CouponId, OrderId, Timestamp};
use std::{collections::HashMap, time::Duration};

/// Pause between two pages of a pass: at most 512 holds a second are looked up, however many wait for their payment.
const BETWEEN_PAGES: Duration = Duration::from_millis(500);
/// Shortest pause between two passes.
const MIN_BETWEEN_PASSES: Duration = Duration::from_millis(500);

/// Where a page starts: behind this hold.
type Place = (Timestamp, CouponId);

/// The worker, one page a round.
pub struct OrphanHolds {
    orphans: ReturnOrphans,
    orders: OrderServiceClient<MeshChannel>,
    age: Duration,
    /// Where the pass goes on; `None` between two passes.
    after: Option<Place>,
}

impl Worker for OrphanHolds {
    type Error = anyhow::Error;

    async fn round(&mut self) -> anyhow::Result<Duration> {
        // If the page fails the pass begins anew.
        let after = self.after.take();
        self.after = self.page(after).await?;
        Ok(if self.after.is_some() { BETWEEN_PAGES } else { self.between_passes() })
    }

    fn pause_after_failure(&self, _failures: u32) -> Duration {
        self.between_passes()
    }
}

impl OrphanHolds {
    /// Queries `orders` about holds from this age on, and has `orphans` return their coupons.
    pub fn new(orphans: ReturnOrphans, orders: OrderServiceClient<MeshChannel>, age: Duration) -> Self {
        Self { orphans, orders, age, after: None }
    }

    fn between_passes(&self) -> Duration {
        (self.age / 4).max(MIN_BETWEEN_PASSES)
    }

    async fn page(&mut self, after: Option<Place>) -> anyhow::Result<Option<Place>> {
        let page = self.orphans.page(self.age, after).await?;
        if page.holds.is_empty() {
            return Ok(page.next);
        }
        let order_ids = page.holds.iter().map(|(_, order_id)| order_id.to_string()).collect();
        let found = self.orders.look_up_orders(LookUpOrdersRequest { order_ids }).await?.into_inner().orders;
        let ended = ended(&page, &states(&found)?);
        if !ended.is_empty() {
            tracing::info!(
                coupon.count = ended.len(),
                "coupons of orders that ended or were never written are settled"
            );
        }
        self.orphans.apply(ended).await?;
        Ok(page.next)
    }
}

fn states(found: &[OrderStatus]) -> anyhow::Result<HashMap<OrderId, OrderState>> {
    found.iter().map(|status| Ok((status.order_id.parse()?, status.state()))).collect()
}

fn ended(page: &HeldPage, states: &HashMap<OrderId, OrderState>) -> Vec<EndedOrder> {
    let end = |&(coupon_id, order_id): &(CouponId, OrderId)| {
        let end = match states.get(&order_id) {
            None => Some(OrderEnd::NeverWritten { requested_before: page.requested_before }),
            Some(state) => end_of(*state),
        };
        end.map(|end| EndedOrder { coupon_id, order_id, end })
    };
    page.holds.iter().filter_map(end).collect()
}

/// How an order ended; `None` if it has not, or if that is not known.
const fn end_of(state: OrderState) -> Option<OrderEnd> {
    match state {
        OrderState::Fulfilled => Some(OrderEnd::Fulfilled),
        OrderState::Expired | OrderState::Cancelled => Some(OrderEnd::Unpaid),
        OrderState::Refunded => Some(OrderEnd::Refunded),
        OrderState::Unspecified
        | OrderState::AwaitingPayment
        | OrderState::Paying
        | OrderState::Paid
        | OrderState::Refunding => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_orders_that_ended_or_were_never_written_let_go_of_their_coupon() {
        let order = |n| OrderId::from_uuid(Uuid::from_u128(n));
        let coupon = |n| CouponId::from_uuid(Uuid::from_u128(n));
        let page = HeldPage {
            holds: (1..=4).map(|n| (coupon(n), order(n))).collect(),
            requested_before: Timestamp::from_micros(9),
            next: None,
        };
        let states = HashMap::from([
            (order(1), OrderState::AwaitingPayment),
            (order(2), OrderState::Fulfilled),
            (order(3), OrderState::Expired),
        ]);
        let ends: Vec<_> = ended(&page, &states).into_iter().map(|ended| (ended.coupon_id, ended.end)).collect();
        let never_written = OrderEnd::NeverWritten { requested_before: Timestamp::from_micros(9) };
        let expected = [(coupon(2), OrderEnd::Fulfilled), (coupon(3), OrderEnd::Unpaid), (coupon(4), never_written)];
        assert_eq!(ends, expected);
    }
}
