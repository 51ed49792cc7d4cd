//! The table `walks`: cursors and leases of walks through whole tables.
//!
//! A turn is a lease, and `next_us` is its fencing token: a replica that sets it has the turn, and its writes have no
//! effect once another replica has set it.

use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{ItemId, OrderId, Timestamp};
use std::time::Duration;
use uuid::Uuid;

/// The walk through the ledger for orders that have ended.
pub const ENDED_ORDERS: &str = "ended_orders";

/// Longest time that `next_us` may be ahead. A later one was set by a wrong clock, and would stop the walk silently.
const MAX_AHEAD: Duration = Duration::from_secs(3_600);

/// A turn of a walk.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// When it expires; also its fencing token.
    pub until: Timestamp,
    /// The last row that was read; `None` before the first.
    pub after: Option<(OrderId, ItemId)>,
}

/// Acquires the turn until `until`, if it is free.
pub async fn begin(
    conn: &mut MySqlConnection,
    walk: &'static str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<Turn>, DbError> {
    let taken = sqlx::query("UPDATE walks SET next_us = ? WHERE name = ? AND (next_us <= ? OR next_us > ?)")
        .bind(until.micros())
        .bind(walk)
        .bind(now.micros())
        .bind(now.plus(MAX_AHEAD).micros())
        .execute(&mut *conn)
        .await?;
    if taken.rows_affected() == 0 {
        // Without a row this is the first turn.
        let first = sqlx::query("INSERT IGNORE INTO walks (name, next_us) VALUES (?, ?)");
        let is_first = first.bind(walk).bind(until.micros()).execute(conn).await?.rows_affected() > 0;
        return Ok(is_first.then_some(Turn { until, after: None }));
    }
    let after = sqlx::query_as("SELECT after_order_id, after_item_id FROM walks WHERE name = ?");
    let (order, item): (Option<Uuid>, Option<Uuid>) = after.bind(walk).fetch_one(conn).await?;
    let after = order.zip(item).map(|(order, item)| (OrderId::from_uuid(order), ItemId::from_uuid(item)));
    Ok(Some(Turn { until, after }))
}

/// Ends a turn at the row `reached`, unless another replica has the next one already. The next turn may begin at
/// `next`.
pub async fn end(
    conn: &mut MySqlConnection,
    walk: &'static str,
    turn: Turn,
    reached: Option<(OrderId, ItemId)>,
    next: Timestamp,
) -> Result<(), DbError> {
    let (order, item) = reached.map(|(order, item)| (order.uuid(), item.uuid())).unzip();
    sqlx::query("UPDATE walks SET after_order_id = ?, after_item_id = ?, next_us = ? WHERE name = ? AND next_us = ?")
        .bind(order)
        .bind(item)
        .bind(next.micros())
        .bind(walk)
        .bind(turn.until.micros())
        .execute(conn)
        .await?;
    Ok(())
}
