//! The SQL of the relay: what is unsent, and what has been sent.

use sqlx::{FromRow, MySqlConnection};
use stampede_db::{DbError, Statement};

/// A message that waits to be sent.
#[derive(Debug, Clone, FromRow)]
pub struct Unsent {
    pub id: u64,
    #[sqlx(rename = "aggregateid")]
    pub aggregate_id: String,
    pub aggregate_version: i64,
    #[sqlx(rename = "type")]
    pub message_type: String,
    pub payload: Vec<u8>,
    pub traceparent: Option<String>,
    pub created_us: i64,
}

/// The first unsent messages of these partitions, in id order. Never "after the last id seen": ids become visible in
/// the order of commits, and a late one would be passed over for good.
pub async fn unsent(connection: &mut MySqlConnection, partitions: &[u16], limit: u32) -> Result<Vec<Unsent>, DbError> {
    let mut select = Statement::new(
        "SELECT id, aggregateid, aggregate_version, type, payload, traceparent, created_us \
         FROM outbox WHERE sent_us IS NULL AND partition_no IN ",
    );
    select.push_list(partitions).push(" ORDER BY id LIMIT ").push_bind(limit).fetch_all(connection).await
}

/// Marks messages that Kafka has acknowledged.
pub async fn mark_sent(connection: &mut MySqlConnection, ids: &[u64], now_us: i64) -> Result<(), DbError> {
    let mut update = Statement::new("UPDATE outbox SET sent_us = ");
    update.push_bind(now_us).push(" WHERE id IN ").push_list(ids).execute(connection).await?;
    Ok(())
}

/// Deletes messages that were sent before this instant, a bounded number at a time. Returns how many.
pub async fn purge_sent(connection: &mut MySqlConnection, before_us: i64, limit: u32) -> Result<u64, DbError> {
    let done = sqlx::query("DELETE FROM outbox WHERE sent_us < ? ORDER BY sent_us LIMIT ?")
        .bind(before_us)
        .bind(limit)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
