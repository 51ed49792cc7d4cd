//! Applies the end of an order to its coupon, which is used or returned. The order consumer, ReleaseCoupon and the
//! sweep of orphan holds share it.

use crate::{
    domain::{Coupon, EndedOrder},
    store,
    usecase::changed,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{CouponId, Timestamp};
use std::collections::BTreeSet;

/// Applies the ends of orders in the order given, inside the caller's transaction. It is idempotent: a message, a
/// release and the sweep may all report the same end.
pub async fn follow_orders(conn: &mut MySqlConnection, ended: &[EndedOrder], now: Timestamp) -> Result<(), DbError> {
    let ids: BTreeSet<CouponId> = ended.iter().map(|order| order.coupon_id).collect();
    let ids: Vec<CouponId> = ids.into_iter().collect();
    let mut coupons = store::coupons::lock_many(conn, &ids).await?;
    let before = coupons.clone();
    for order in ended {
        let next = coupons.get(&order.coupon_id).and_then(|coupon| follow(coupon, order, now));
        coupons.extend(next.map(|coupon| (coupon.id, coupon)));
    }
    store::coupons::write_states(conn, &changed(&before, coupons), now).await
}

fn follow(coupon: &Coupon, order: &EndedOrder, now: Timestamp) -> Option<Coupon> {
    coupon.follow(order.order_id, order.end, now).unwrap_or_else(|used_elsewhere| {
        tracing::error!(coupon.id = %coupon.id, error.cause = %used_elsewhere, "a coupon was used by two orders");
        None
    })
}
