//! Applies the end of an order to its coupon, which is used or returned. The order consumer, ReleaseCoupon and the
//! sweep of orphan holds share it.

use crate::{
    domain::{Coupon, EndedOrder},
    usecase::locked_coupons::LockedCoupons,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;

/// Applies the ends of orders in the order given, inside the caller's transaction. It is idempotent: a message, a
/// release and the sweep may all report the same end.
pub async fn follow_orders(conn: &mut MySqlConnection, ended: &[EndedOrder], now: Timestamp) -> Result<(), DbError> {
    let mut coupons = LockedCoupons::lock(conn, ended.iter().map(|order| order.coupon_id).collect()).await?;
    for order in ended {
        if let Some(stepped) = coupons.get(order.coupon_id).and_then(|coupon| follow(coupon, order, now)) {
            coupons.put(stepped);
        }
    }
    coupons.save(conn, now).await
}

fn follow(coupon: &Coupon, order: &EndedOrder, now: Timestamp) -> Option<Coupon> {
    coupon.follow(order.order_id, order.end, now).unwrap_or_else(|used_elsewhere| {
        tracing::error!(coupon.id = %coupon.id, error.cause = %used_elsewhere, "a coupon was used by two orders");
        None
    })
}
