//! The table `provider_turns`: whose turn it is to read a list of the provider.
//!
//! `next_us` is the token of a turn: whoever sets it has the turn, and writes nothing once somebody else has set it.

use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::Timestamp;

/// Takes a turn until `until`, which names it from then on. Returns whether it was free.
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
    // Without a row this is the first turn ever.
    let first = sqlx::query("INSERT IGNORE INTO provider_turns (list, next_us) VALUES (?, ?)");
    Ok(first.bind(list).bind(until.micros()).execute(conn).await?.rows_affected() > 0)
}

/// Returns whether this turn is still the caller's, and stays so until the transaction ends: its row is locked.
pub async fn is_held(conn: &mut MySqlConnection, list: &'static str, turn: Timestamp) -> Result<bool, DbError> {
    let held = sqlx::query_scalar("SELECT next_us FROM provider_turns WHERE list = ? FOR UPDATE");
    let held: Option<i64> = held.bind(list).fetch_optional(conn).await?;
    Ok(held == Some(turn.micros()))
}

/// Ends this turn, unless somebody else has the next one already, which may begin at `next`.
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
