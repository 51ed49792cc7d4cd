//! Orders that are due for a sweep, by the index of `due_us`.
//!
//! They are read without locks, so the caller must check each again under its lock. Pages are read by a cursor, so
//! orders that cannot be changed do not block those behind them.

use crate::domain::{LAST_ASK_BACKOFF, MANY_ASKS, MAX_ASK_BACKOFF, PaymentPolicy};
use sqlx::{MySql, MySqlConnection};
use stampede_db::{DbError, Statement};
use stampede_vocab::Timestamp;
use std::time::Duration;
use uuid::Uuid;

/// The position of an order in the index.
pub type Due = (i64, Uuid);

/// Returns the cursor before all orders whose payment deadline is this or later.
pub const fn overdue_since(deadline: Timestamp) -> Due {
    (deadline.micros(), Uuid::nil())
}

/// Returns the cursor before all orders that have waited since this time or later.
pub const fn waiting_since(time: Timestamp) -> Due {
    (-time.micros(), Uuid::max())
}

/// Returns up to `limit` orders whose payment deadline has passed, most overdue first, after the cursor `after`.
pub async fn overdue(
    conn: &mut MySqlConnection,
    now: Timestamp,
    policy: &PaymentPolicy,
    after: Option<Due>,
    limit: u32,
) -> Result<Vec<Due>, DbError> {
    let (after_us, after_id) = after.unwrap_or((1, Uuid::nil()));
    let overdue = sqlx::query_as::<MySql, Due>(
        "SELECT due_us, id FROM orders FORCE INDEX (ix_orders_waiting) \
         WHERE due_us BETWEEN ? AND ? AND (due_us > ? OR id > ?) \
         AND (state = 'AWAITING_PAYMENT' OR (state = 'PAYING' AND due_us <= ?)) \
         ORDER BY due_us, id LIMIT ?",
    );
    let overdue = overdue.bind(after_us).bind(now.micros()).bind(after_us).bind(after_id);
    Ok(overdue.bind(now.minus(policy.paying_grace).micros()).bind(limit).fetch_all(conn).await?)
}

/// Returns up to `limit` orders that another service has not answered in time, those that have waited longest first,
/// after the cursor `after`.
pub async fn waiting(
    conn: &mut MySqlConnection,
    now: Timestamp,
    policy: &PaymentPolicy,
    after: Option<Due>,
    limit: u32,
) -> Result<Vec<Due>, DbError> {
    let (after_us, after_id) = after.unwrap_or((-1, Uuid::max()));
    let mut waiting =
        Statement::new("SELECT due_us, id FROM orders FORCE INDEX (ix_orders_waiting) WHERE due_us BETWEEN ");
    waiting.push_bind(-now.minus(policy.ask_backoff).micros()).push(" AND ").push_bind(after_us);
    waiting.push(" AND (due_us < ").push_bind(after_us).push(" OR id < ").push_bind(after_id).push(")");
    // Without the jitter, which the domain adds: it leaves what is read too early to a later round.
    waiting.push(" AND updated_us <= ").push_bind(now.micros()).push(" - IF(asks >= ").push_bind(MANY_ASKS);
    waiting.push(", ").push_bind(micros(LAST_ASK_BACKOFF)).push(", LEAST(").push_bind(micros(policy.ask_backoff));
    waiting.push(" * (1 << asks), ").push_bind(micros(MAX_ASK_BACKOFF)).push("))");
    waiting.push(" ORDER BY due_us DESC, id DESC LIMIT ").push_bind(limit);
    waiting.fetch_all(conn).await
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
