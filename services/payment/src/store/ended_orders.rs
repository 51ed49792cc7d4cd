//! The table `ended_orders`: payments of unpaid ended orders that are captured, or may still be.

use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement, Statements};
use stampede_vocab::{PaymentId, Timestamp};
use uuid::Uuid;

/// A payment of an order that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedOrder {
    pub payment_id: PaymentId,
    /// When its capture is published next.
    pub due_at: Timestamp,
    /// How often the capture was published again; `tells` in the table.
    pub repeats: i32,
}

/// Adds the statement that inserts these. It leaves an existing row unchanged: the end of its order was repeated.
pub fn push_insert(statements: &mut Statements, ended: &[PaymentId], due_at: Timestamp) {
    if ended.is_empty() {
        return;
    }
    let mut query = Statement::new("INSERT INTO ended_orders (payment_id, due_us, tells) ");
    query.push_values(ended, |mut row, payment_id| {
        row.push_bind(payment_id.uuid()).push_bind(due_at.micros()).push_bind(0_i32);
    });
    query.push(" ON DUPLICATE KEY UPDATE tells = tells");
    statements.push(query);
}

/// Returns up to `limit` due rows, most overdue first.
pub async fn due(conn: &mut MySqlConnection, now: Timestamp, limit: u32) -> Result<Vec<EndedOrder>, DbError> {
    let due = sqlx::query_as::<_, (Uuid, i64, i32)>(
        "SELECT payment_id, due_us, tells FROM ended_orders WHERE due_us <= ? ORDER BY due_us LIMIT ?",
    );
    let rows = due.bind(now.micros()).bind(limit).fetch_all(conn).await?;
    let ended = |(payment_id, due_us, repeats)| EndedOrder {
        payment_id: PaymentId::from_uuid(payment_id),
        due_at: Timestamp::from_micros(due_us),
        repeats,
    };
    Ok(rows.into_iter().map(ended).collect())
}

/// Locks these rows and returns those that are unchanged since they were read: of several replicas that read the same
/// row, one gets it. A caller that changes the payments too must have locked those before.
pub async fn unchanged(conn: &mut MySqlConnection, read: &[EndedOrder]) -> Result<Vec<EndedOrder>, DbError> {
    if read.is_empty() {
        return Ok(Vec::new());
    }
    let mut query =
        Statement::new("SELECT payment_id, due_us FROM ended_orders FORCE INDEX (PRIMARY) WHERE payment_id IN ");
    query.push_list(read.iter().map(|ended| ended.payment_id.uuid()));
    query.push(" FOR UPDATE");
    let rows: Vec<(Uuid, i64)> = query.fetch_all(conn).await?;
    let is_there = |ended: &&EndedOrder| rows.contains(&(ended.payment_id.uuid(), ended.due_at.micros()));
    Ok(read.iter().filter(is_there).copied().collect())
}

/// Updates the due time of these, and the number of repeats.
pub async fn postpone(conn: &mut MySqlConnection, ended: &[EndedOrder]) -> Result<(), DbError> {
    if ended.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO ended_orders (payment_id, due_us, tells) ");
    query.push_values(ended, |mut row, ended| {
        row.push_bind(ended.payment_id.uuid()).push_bind(ended.due_at.micros()).push_bind(ended.repeats);
    });
    query.push(" ON DUPLICATE KEY UPDATE due_us = VALUES(due_us), tells = VALUES(tells)");
    query.execute(conn).await?;
    Ok(())
}

/// Deletes these: nothing more is to be published.
pub async fn delete(conn: &mut MySqlConnection, settled: &[PaymentId]) -> Result<(), DbError> {
    if settled.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("DELETE e FROM ended_orders e FORCE INDEX (PRIMARY) WHERE e.payment_id IN ");
    query.push_list(settled.iter().map(PaymentId::uuid));
    query.execute(conn).await?;
    Ok(())
}
