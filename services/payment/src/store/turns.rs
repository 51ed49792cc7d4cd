//! The table `provider_turns`: the leases of the lists of the provider. One replica at a time reads a list, in its
//! turn.
//!
//! `next_us` is the end of the lease, and its fencing token: each holder sets another one, and its writes are
//! conditional on it.

use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;

/// Claims the turn until `until`, which is its token. Returns whether it was free.
pub async fn begin(
    conn: &mut MySqlConnection,
    list: &'static str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, DbError> {
    let take = sqlx::query("UPDATE provider_turns SET next_us = ? WHERE list = ? AND next_us <= ?");
    let taken = take.bind(until.micros()).bind(list).bind(now.micros()).execute(&mut *conn).await?;
    if taken.rows_affected() > 0 {
        return Ok(true);
    }
    // Without a row this is the first turn.
    let first = sqlx::query("INSERT IGNORE INTO provider_turns (list, next_us) VALUES (?, ?)");
    Ok(first.bind(list).bind(until.micros()).execute(conn).await?.rows_affected() > 0)
}

/// Locks the row and returns whether the caller has the turn. If so, it keeps it until the transaction ends.
pub async fn is_held(conn: &mut MySqlConnection, list: &'static str, turn: Timestamp) -> Result<bool, DbError> {
    let held = sqlx::query_scalar("SELECT next_us FROM provider_turns WHERE list = ? FOR UPDATE");
    let held: Option<i64> = held.bind(list).fetch_optional(conn).await?;
    Ok(held == Some(turn.micros()))
}

/// Releases the turn, unless another replica has claimed the next one. The next one may begin at `next`.
pub async fn end(
    conn: &mut MySqlConnection,
    list: &'static str,
    turn: Timestamp,
    next: Timestamp,
) -> Result<(), DbError> {
    let end = sqlx::query("UPDATE provider_turns SET next_us = ? WHERE list = ? AND next_us = ?");
    end.bind(next.micros()).bind(list).bind(turn.micros()).execute(conn).await?;
    Ok(())
}
