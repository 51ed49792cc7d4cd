//! The SQL of the relay: what is unsent, and what has been sent.

use sqlx::{MySql, MySqlConnection, QueryBuilder, Row};
use stampede_db::DbError;

/// A message that waits to be sent.
#[derive(Debug, Clone)]
pub struct Unsent {
    pub id: u64,
    pub aggregate_id: String,
    pub aggregate_version: i64,
    pub message_type: String,
    pub payload: Vec<u8>,
    pub traceparent: Option<String>,
    pub created_us: i64,
}

/// The first unsent messages of these partitions, in id order. Never "after the last id seen": ids become visible in
/// the order of commits, and a late one would be passed over for good.
pub async fn unsent(connection: &mut MySqlConnection, partitions: &[u16], limit: u32) -> Result<Vec<Unsent>, DbError> {
    let mut select = QueryBuilder::<MySql>::new(
        "SELECT id, aggregateid, aggregate_version, type, payload, traceparent, created_us \
         FROM outbox WHERE sent_us IS NULL AND partition_no IN (",
    );
    let mut list = select.separated(", ");
    for partition in partitions {
        list.push_bind(partition);
    }
    select.push(") ORDER BY id LIMIT ").push_bind(limit);
    let rows = select.build().fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

fn read(row: &sqlx::mysql::MySqlRow) -> Result<Unsent, DbError> {
    Ok(Unsent {
        id: row.try_get(0)?,
        aggregate_id: row.try_get(1)?,
        aggregate_version: row.try_get(2)?,
        message_type: row.try_get(3)?,
        payload: row.try_get(4)?,
        traceparent: row.try_get(5)?,
        created_us: row.try_get(6)?,
    })
}

/// Marks messages that Kafka has acknowledged.
pub async fn mark_sent(connection: &mut MySqlConnection, ids: &[u64], now_us: i64) -> Result<(), DbError> {
    let mut update = QueryBuilder::<MySql>::new("UPDATE outbox SET sent_us = ");
    update.push_bind(now_us).push(" WHERE id IN (");
    let mut list = update.separated(", ");
    for id in ids {
        list.push_bind(id);
    }
    update.push(")").build().execute(connection).await?;
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
