//! The table `unread_refunds`: charges that were refunded by hand, and that the provider does not show yet, whose
//! payment cannot be read, or whose refund was pending.

use super::count;
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::Timestamp;

/// A charge that the provider has not shown, whose payment cannot be read, or whose refund was pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The provider's id.
    pub charge_id: String,
    /// When it is looked up next.
    pub due_at: Timestamp,
    /// How often it was looked up, since its page was read.
    pub tries: u32,
    /// Whether its refund was pending when the page was read. The provider may show it then before the refund is done.
    pub is_pending: bool,
    /// Whether the provider has not shown it when it was last looked up, or its payment could not be read then.
    pub is_unread: bool,
}

/// Inserts these. Leaves an existing row unchanged, unless another refund of its charge is pending: then it begins
/// anew. One that is unread stays so.
pub async fn insert(conn: &mut MySqlConnection, unread: &[Unread]) -> Result<(), DbError> {
    if unread.is_empty() {
        return Ok(());
    }
    let mut query = insert_of(unread);
    query.push(
        " ON DUPLICATE KEY UPDATE due_us = IF(VALUES(is_pending), VALUES(due_us), due_us), \
         tries = IF(VALUES(is_pending), VALUES(tries), tries), is_pending = is_pending OR VALUES(is_pending), \
         is_unread = is_unread OR VALUES(is_unread)",
    );
    query.execute(conn).await?;
    Ok(())
}

/// Returns up to `limit` due rows, most overdue first.
pub async fn due(conn: &mut MySqlConnection, now: Timestamp, limit: u32) -> Result<Vec<Unread>, DbError> {
    let due = sqlx::query_as::<_, (String, i64, i32, bool, bool)>(
        "SELECT charge_id, due_us, tries, is_pending, is_unread FROM unread_refunds WHERE due_us <= ? \
         ORDER BY due_us LIMIT ?",
    );
    let rows = due.bind(now.micros()).bind(limit).fetch_all(conn).await?;
    let unread = |(charge_id, due_us, tries, is_pending, is_unread)| {
        Ok(Unread { charge_id, due_at: Timestamp::from_micros(due_us), tries: count(tries)?, is_pending, is_unread })
    };
    rows.into_iter().map(unread).collect()
}

/// Updates the due time of these, the number of tries, and whether they are pending or unread.
pub async fn postpone(conn: &mut MySqlConnection, unread: &[Unread]) -> Result<(), DbError> {
    if unread.is_empty() {
        return Ok(());
    }
    let mut query = insert_of(unread);
    query.push(
        " ON DUPLICATE KEY UPDATE due_us = VALUES(due_us), tries = VALUES(tries), \
         is_pending = VALUES(is_pending), is_unread = VALUES(is_unread)",
    );
    query.execute(conn).await?;
    Ok(())
}

fn insert_of(unread: &[Unread]) -> Statement {
    let mut query = Statement::new("INSERT INTO unread_refunds (charge_id, due_us, tries, is_pending, is_unread) ");
    query.push_values(unread, |mut row, unread| {
        row.push_bind(&unread.charge_id)
            .push_bind(unread.due_at.micros())
            .push_bind(unread.tries)
            .push_bind(i32::from(unread.is_pending))
            .push_bind(i32::from(unread.is_unread));
    });
    query
}

/// Deletes these: they are read, and nothing of them is pending.
pub async fn delete(conn: &mut MySqlConnection, read: &[Unread]) -> Result<(), DbError> {
    if read.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("DELETE u FROM unread_refunds u FORCE INDEX (PRIMARY) WHERE u.charge_id IN ");
    query.push_list(read.iter().map(|unread| &unread.charge_id));
    query.execute(conn).await?;
    Ok(())
}

/// Returns the number of charges that the provider does not show, or whose payments cannot be read.
pub async fn count_unread(conn: &mut MySqlConnection) -> Result<u64, DbError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM unread_refunds WHERE is_unread").fetch_one(conn).await?;
    Ok(count.unsigned_abs())
}
