//! Returns coupons held for orders that were never written, and settles those whose end message is missing.
//!
//! Looks up the order of each hold that is too old for the order to be written any more. A hold whose order goes on is
//! left, and looked up again in the next pass.

use crate::{
    client::Orders,
    domain::{EndedOrder, OrderEnd},
    store::{self, coupons::Stored},
    usecase::{follow_free_orders, readable},
};
use stampede_db::{Database, DbError};
use stampede_vocab::{
    CouponId, OrderId, Timestamp,
    limits::{MAX_PER_CALL, least_unwritten_age},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Most holds of one page: their orders are looked up in one call.
const BATCH_SIZE: u32 = MAX_PER_CALL as u32;

/// The cursor of a page: it starts after this hold.
pub type HoldCursor = (Timestamp, CouponId);

/// A page of old holds.
#[derive(Debug)]
struct HeldPage {
    /// Each coupon with the order that it is held for.
    holds: Vec<(CouponId, OrderId)>,
    /// Every hold of the page was last requested at this time or earlier.
    requested_before: Timestamp,
    /// Where the next page starts; `None` on the last.
    next: Option<HoldCursor>,
}

/// Returns coupons of orders that were never written.
pub struct ReleaseUnwritten {
    db: Database,
    orders: Orders,
    age: Duration,
}

impl ReleaseUnwritten {
    /// Returns the sweep of holds older than `age`, which must exceed the time limit for writing an order.
    pub fn new(db: Database, orders: Orders, age: Duration) -> Self {
        Self { db, orders, age }
    }

    /// Settles a page of holds that were last requested at least the age ago, oldest first, after `after`. Returns
    /// where the next page starts; `None` after the last. Several replicas may: an end is applied once.
    pub async fn page(&self, after: Option<HoldCursor>) -> anyhow::Result<Option<HoldCursor>> {
        let page = self.held(after).await?;
        if page.holds.is_empty() {
            return Ok(page.next);
        }
        let orders: Vec<OrderId> = page.holds.iter().map(|(_, order_id)| *order_id).collect();
        let (ends, write_limit) = self.orders.ends(&orders).await?;
        let ended = ended(&page, &ends, self.outlasts(write_limit));
        if !ended.is_empty() {
            tracing::info!(
                coupon.count = ended.len(),
                "coupons of orders that ended or were never written are used or returned"
            );
        }
        self.apply(ended).await?;
        Ok(page.next)
    }

    async fn held(&self, after: Option<HoldCursor>) -> Result<HeldPage, DbError> {
        let requested_before = Timestamp::now().minus(self.age);
        let coupons = self
            .db
            .run("held_coupons", |mut conn| async move {
                store::coupons::held_since(&mut conn, requested_before, after, BATCH_SIZE).await
            })
            .await?;
        // A row that cannot be read is skipped, and does not stop the sweep.
        let last = coupons.last().filter(|_| coupons.len() == BATCH_SIZE as usize);
        let next = last.map(|stored| (stored.updated_at, stored.id));
        Ok(HeldPage { holds: coupons.into_iter().filter_map(hold).collect(), requested_before, next })
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

    /// Applies the ends of the orders of a page. Skips coupons that another transaction has locked: a later pass finds
    /// them again.
    async fn apply(&self, ended: Vec<EndedOrder>) -> Result<(), DbError> {
        if ended.is_empty() {
            return Ok(());
        }
        let (ended, now): (Arc<[EndedOrder]>, _) = (ended.into(), Timestamp::now());
        // Ends whose coupon cannot be read any more are left out: the next pass logs them.
        self.db
            .transact("release_unwritten", move |conn| {
                let ended = ended.clone();
                Box::pin(async move { follow_free_orders(conn, &ended, now).await })
            })
            .await?;
        Ok(())
    }
}

fn hold(stored: Stored) -> Option<(CouponId, OrderId)> {
    let coupon = readable(stored)?;
    Some((coupon.id, coupon.state.order_id()?))
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
