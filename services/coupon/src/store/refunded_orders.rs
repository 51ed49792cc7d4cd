//! The table `refunded_orders`: refunded orders that had a coupon.

use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::{CouponId, OrderId, Timestamp};
use std::collections::{BTreeSet, HashSet};
use uuid::Uuid;

/// Returns the refunded orders of these coupons, each with its coupon.
pub async fn of_coupons(
    conn: &mut MySqlConnection,
    coupons: &BTreeSet<CouponId>,
) -> Result<HashSet<(CouponId, OrderId)>, DbError> {
    if coupons.is_empty() {
        return Ok(HashSet::new());
    }
    let mut query = Statement::new("SELECT coupon_id, order_id FROM refunded_orders WHERE coupon_id IN ");
    query.push_list(coupons.iter().map(CouponId::uuid));
    let rows: Vec<(Uuid, Uuid)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(coupon, order)| (CouponId::from_uuid(coupon), OrderId::from_uuid(order))).collect())
}

/// Inserts these refunded orders, each with its coupon. A repeat changes nothing.
pub async fn insert(
    conn: &mut MySqlConnection,
    orders: &BTreeSet<(CouponId, OrderId)>,
    now: Timestamp,
) -> Result<(), DbError> {
    if orders.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO refunded_orders (coupon_id, order_id, refunded_us) ");
    query.push_values(orders, |mut row, (coupon_id, order_id)| {
        row.push_bind(coupon_id.uuid()).push_bind(order_id.uuid()).push_bind(now.micros());
    });
    query.push(" ON DUPLICATE KEY UPDATE refunded_us = refunded_us");
    query.execute(conn).await?;
    Ok(())
}
