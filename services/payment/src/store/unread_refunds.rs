//! The table `unread_refunds`: charges that were refunded by hand and that the provider does not show yet.

use super::count;
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::Timestamp;

/// A charge that the provider has not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The provider's id.
    pub charge_id: String,
    /// When it is looked up next.
    pub due_at: Timestamp,
    /// How often it was looked up, since its page was read.
    pub tries: u32,
}

/// Inserts these. Leaves an existing row unchanged.
pub async fn insert(conn: &mut MySqlConnection, charge_ids: &[String], due_at: Timestamp) -> Result<(), DbError> {
    if charge_ids.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO unread_refunds (charge_id, due_us, tries) ");
    query.push_values(charge_ids, |mut row, charge_id| {
        row.push_bind(charge_id).push_bind(due_at.micros()).push_bind(0_i32);
    });
    query.push(" ON DUPLICATE KEY UPDATE tries = tries");
    query.execute(conn).await?;
    Ok(())
}

/// Returns up to `limit` due rows, most overdue first.
pub async fn due(conn: &mut MySqlConnection, now: Timestamp, limit: u32) -> Result<Vec<Unread>, DbError> {
    let due = sqlx::query_as::<_, (String, i64, i32)>(
        "SELECT charge_id, due_us, tries FROM unread_refunds WHERE due_us <= ? ORDER BY due_us LIMIT ?",
    );
    let rows = due.bind(now.micros()).bind(limit).fetch_all(conn).await?;
    let unread = |(charge_id, due_us, tries)| {
        Ok(Unread { charge_id, due_at: Timestamp::from_micros(due_us), tries: count(tries)? })
    };
    rows.into_iter().map(unread).collect()
}

/// Updates the due time of these, and the number of tries.
pub async fn postpone(conn: &mut MySqlConnection, unread: &[Unread]) -> Result<(), DbError> {
    if unread.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO unread_refunds (charge_id, due_us, tries) ");
    query.push_values(unread, |mut row, unread| {
        row.push_bind(&unread.charge_id).push_bind(unread.due_at.micros()).push_bind(unread.tries);
    });
    query.push(" ON DUPLICATE KEY UPDATE due_us = VALUES(due_us), tries = VALUES(tries)");
    query.execute(conn).await?;
    Ok(())
}

/// Deletes these: the provider has shown them.
pub async fn delete(conn: &mut MySqlConnection, read: &[Unread]) -> Result<(), DbError> {
    if read.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("DELETE u FROM unread_refunds u FORCE INDEX (PRIMARY) WHERE u.charge_id IN ");
    query.push_list(read.iter().map(|unread| &unread.charge_id));
    query.execute(conn).await?;
    Ok(())
}

/// Returns the number of rows.
pub async fn count_all(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM unread_refunds").fetch_one(conn).await?;
    Ok(count.unsigned_abs())
}
