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
use stampede_db::{BatchLimit, Bisection, Database, DbError};
use stampede_vocab::{
    CouponId, OrderId, Timestamp,
    limits::{MAX_PER_CALL, least_unwritten_age},
};
use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

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
    /// Most coupons of one transaction.
    limit: BatchLimit,
}

impl ReleaseUnwritten {
    /// Returns the sweep of holds older than `age`, which must exceed the time limit for writing an order.
    pub fn new(db: Database, orders: Orders, age: Duration) -> Self {
        Self { db, orders, age, limit: BatchLimit::up_to(BATCH_SIZE as usize) }
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

    /// Applies the ends of the orders of a page, all in one transaction, or in smaller ones after time-outs. Skips
    /// coupons that another transaction has locked: a later pass finds them again. If a transaction fails because of
    /// the data, splits it until the coupon at fault is alone.
    async fn apply(&self, ended: Vec<EndedOrder>) -> Result<(), DbError> {
        let (ended, now): (Arc<[EndedOrder]>, _) = (ended.into(), Timestamp::now());
        let mut bisection = Bisection::of(ended.len());
        while let Some(part) = bisection.next_part_within(self.limit.get()) {
            let (first, tried) = (part.start, part.len());
            match self.apply_part(ended.clone(), part.clone(), now).await {
                Ok(are_free) => {
                    // Coupons that are locked show nothing: a batch that has timed out may still have them.
                    if are_free {
                        self.limit.succeeded(tried);
                    }
                    bisection.part_written(part.map(|_| Ok(())));
                }
                // The next pass tries those that are left again.
                Err(error) if !error.is_of_data() => {
                    self.limit.failed(tried, &error);
                    return Err(error);
                }
                Err(error) => {
                    let is_halved = bisection.part_failed(part, &error);
                    if !is_halved {
                        tracing::error!(
                            coupon.id = %ended[first].coupon_id, error.cause = %error,
                            "the end of an order cannot be applied to its coupon"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies some of the ends. Returns whether no other transaction had locked a coupon of them. Ends whose coupon
    /// cannot be read any more are left out: the next pass logs them.
    async fn apply_part(&self, ended: Arc<[EndedOrder]>, part: Range<usize>, now: Timestamp) -> Result<bool, DbError> {
        let apply = self.db.transact("release_unwritten", move |conn| {
            let (ended, part) = (ended.clone(), part.clone());
            Box::pin(async move { follow_free_orders(conn, &ended[part], now).await })
        });
        apply.await
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
