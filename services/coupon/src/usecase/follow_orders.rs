//! Applies the end of an order to its coupon, which is used or returned. The order consumer, ReleaseCoupon and the
//! sweep of unwritten orders share it.

use crate::{
    domain::{Coupon, EndedOrder, OrderEnd},
    store,
    usecase::working_set::WorkingSet,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{CouponId, Timestamp};
use std::collections::BTreeSet;

/// The indexes of the ends that were left out, with the errors.
pub type LeftOut = Vec<(usize, DbError)>;

/// Applies the ends of orders in the order given, inside the caller's transaction. It is idempotent: a message, a
/// release and the sweep may all report the same end, late and after a later end.
///
/// Leaves out the ends whose coupon cannot be read, and returns their indexes with the errors.
pub async fn follow_orders(
    conn: &mut MySqlConnection,
    ended: &[EndedOrder],
    now: Timestamp,
) -> Result<LeftOut, DbError> {
    let coupons = WorkingSet::lock(conn, coupon_ids(ended)).await?;
    follow_all(conn, coupons, ended, now).await
}

/// [`follow_orders`] that skips coupons which another transaction has locked: for callers that retry anyway. Returns
/// whether none was.
pub async fn follow_free_orders(
    conn: &mut MySqlConnection,
    ended: &[EndedOrder],
    now: Timestamp,
) -> Result<bool, DbError> {
    let coupons = WorkingSet::lock_free(conn, coupon_ids(ended)).await?;
    let is_free =
        |order: &EndedOrder| coupons.get(order.coupon_id).is_some() || coupons.error(order.coupon_id).is_some();
    let are_free = ended.iter().all(is_free);
    follow_all(conn, coupons, ended, now).await?;
    Ok(are_free)
}

fn coupon_ids(ended: &[EndedOrder]) -> Vec<CouponId> {
    ended.iter().map(|order| order.coupon_id).collect()
}

async fn follow_all(
    conn: &mut MySqlConnection,
    mut coupons: WorkingSet,
    ended: &[EndedOrder],
    now: Timestamp,
) -> Result<LeftOut, DbError> {
    let mut refunded = store::refunded_orders::of_coupons(conn, &not_held_by_order(&coupons, ended)).await?;
    let mut newly_refunded = BTreeSet::new();
    for order in ended {
        let Some(coupon) = coupons.get(order.coupon_id) else { continue };
        let of_order = (order.coupon_id, order.order_id);
        if order.end == OrderEnd::Refunded {
            refunded.insert(of_order);
            newly_refunded.insert(of_order);
        }
        // A refund is the last message of an order, so this is a repeat of an earlier one.
        if order.end == OrderEnd::Fulfilled && refunded.contains(&of_order) {
            continue;
        }
        if let Some(changed) = follow(coupon, order, now) {
            coupons.put(changed);
        }
    }
    let unreadable = |(index, order): (usize, &EndedOrder)| Some((index, coupons.error(order.coupon_id)?.clone()));
    let unreadable = ended.iter().enumerate().filter_map(unreadable).collect();
    coupons.save(conn, now).await?;
    store::refunded_orders::insert(conn, &newly_refunded, now).await?;
    Ok(unreadable)
}

/// Returns the coupons that their fulfilled orders neither hold nor have used: the orders were paid after they had
/// expired, or were refunded and this is a repeat.
fn not_held_by_order(coupons: &WorkingSet, ended: &[EndedOrder]) -> BTreeSet<CouponId> {
    let is_not_held = |order: &&EndedOrder| {
        let holder = coupons.get(order.coupon_id).map(|coupon| coupon.state.order_id());
        order.end == OrderEnd::Fulfilled && holder.is_some_and(|holder| holder != Some(order.order_id))
    };
    ended.iter().filter(is_not_held).map(|order| order.coupon_id).collect()
}

fn follow(coupon: &Coupon, order: &EndedOrder, now: Timestamp) -> Option<Coupon> {
    coupon.follow(order.order_id, order.end, now).unwrap_or_else(|used_elsewhere| {
        tracing::error!(coupon.id = %coupon.id, error.cause = %used_elsewhere, "a coupon was used by two orders");
        None
    })
}
