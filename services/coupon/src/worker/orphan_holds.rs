//! Looks up the orders of old holds at the order service: one page of ids a call, a pause between pages, and each hold
//! once a pass, so that many orders waiting for their payment cost little.

use crate::{
    client::Orders,
    domain::{EndedOrder, OrderEnd},
    usecase::{HeldPage, ReturnOrphans},
};
use stampede_service::Worker;
use stampede_vocab::{CouponId, OrderId, Timestamp, limits::least_unwritten_age};
use std::{collections::HashMap, time::Duration};

/// Pause between two pages of a pass. It throttles look-ups to 512 holds a second, however many wait for their payment.
const BETWEEN_PAGES: Duration = Duration::from_millis(500);
/// Shortest pause between two passes.
const MIN_BETWEEN_PASSES: Duration = Duration::from_millis(500);

/// The cursor of a page: it starts after this hold.
type Cursor = (Timestamp, CouponId);

/// The worker, one page a round.
pub struct OrphanHolds {
    orphans: ReturnOrphans,
    orders: Orders,
    age: Duration,
    /// The cursor of the pass; `None` between two passes.
    after: Option<Cursor>,
}

impl Worker for OrphanHolds {
    type Error = anyhow::Error;

    async fn round(&mut self) -> anyhow::Result<Duration> {
        // If the page fails the pass starts again.
        let after = self.after.take();
        self.after = self.page(after).await?;
        Ok(if self.after.is_some() { BETWEEN_PAGES } else { self.between_passes() })
    }

    fn pause_after_failure(&self, _failures: u32) -> Duration {
        self.between_passes()
    }
}

impl OrphanHolds {
    /// Returns the worker. It looks up the orders of holds from this age on, and returns orphans by `orphans`.
    pub fn new(orphans: ReturnOrphans, orders: Orders, age: Duration) -> Self {
        Self { orphans, orders, age, after: None }
    }

    fn between_passes(&self) -> Duration {
        (self.age / 4).max(MIN_BETWEEN_PASSES)
    }

    /// Returns whether an order that is missing now will never be written, if orders are written within this time.
    fn outlasts(&self, write_limit: Duration) -> bool {
        let outlasts = self.age >= least_unwritten_age(write_limit);
        if !outlasts {
            tracing::error!(
                order.write_limit_ms = %write_limit.as_millis(),
                "coupons are kept, since order may still write their orders: it has a longer --order-write-limit-ms"
            );
        }
        outlasts
    }

    async fn page(&mut self, after: Option<Cursor>) -> anyhow::Result<Option<Cursor>> {
        let page = self.orphans.page(self.age, after).await?;
        if page.holds.is_empty() {
            return Ok(page.next);
        }
        let orders: Vec<OrderId> = page.holds.iter().map(|(_, order_id)| *order_id).collect();
        let (ends, write_limit) = self.orders.ends(&orders).await?;
        let ended = ended(&page, &ends, self.outlasts(write_limit));
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

/// Returns the orders of a page that have ended or were never written, by the ends of those that were written. Without
/// `is_final` those that are missing may still be written.
fn ended(page: &HeldPage, ends: &HashMap<OrderId, Option<OrderEnd>>, is_final: bool) -> Vec<EndedOrder> {
    let never_written = is_final.then_some(OrderEnd::NeverWritten { requested_before: page.requested_before });
    let end = |&(coupon_id, order_id): &(CouponId, OrderId)| {
        let end = ends.get(&order_id).copied().unwrap_or(never_written);
        end.map(|end| EndedOrder { coupon_id, order_id, end })
    };
    page.holds.iter().filter_map(end).collect()
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
        let ends = HashMap::from([
            (order(1), None),
            (order(2), Some(OrderEnd::Fulfilled)),
            (order(3), Some(OrderEnd::Unpaid)),
        ]);
        let ended = |is_final| {
            let ended = ended(&page, &ends, is_final).into_iter();
            ended.map(|ended| (ended.coupon_id, ended.end)).collect::<Vec<_>>()
        };
        let never_written = OrderEnd::NeverWritten { requested_before: Timestamp::from_micros(9) };
        let expected = [(coupon(2), OrderEnd::Fulfilled), (coupon(3), OrderEnd::Unpaid), (coupon(4), never_written)];
        assert_eq!(ended(true), expected);
        assert_eq!(ended(false), expected[..2], "an order that may still be written keeps its coupon");
    }
}
