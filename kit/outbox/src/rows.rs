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

/// Returns the first unsent messages of these partitions, in id order. It keeps no cursor: ids become visible in the
/// order of commits, and a cursor would pass over a lower id that commits late.
pub async fn unsent(conn: &mut MySqlConnection, partitions: &[u16], limit: u32) -> Result<Vec<Unsent>, DbError> {
    let mut select = Statement::new(
        "SELECT message.id, aggregateid, aggregate_version, type, payload, traceparent, created_us \
         FROM outbox_unsent unsent STRAIGHT_JOIN outbox message ON message.id = unsent.id WHERE unsent.partition_no IN ",
    );
    select.push_list(partitions).push(" ORDER BY unsent.id LIMIT ").push_bind(limit).fetch_all(conn).await
}

/// Marks messages as sent: deletes their rows from the list of unsent ones.
///
/// The join finds each row by its key. Given an `IN` list, both servers scan a short table instead, and then wait for
/// the locks of transactions that are writing messages.
pub async fn mark_sent(conn: &mut MySqlConnection, ids: &[u64]) -> Result<(), DbError> {
    let ids = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    sqlx::query(
        "DELETE unsent FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) sent \
         STRAIGHT_JOIN outbox_unsent unsent ON unsent.id = sent.id",
    )
    .bind(format!("[{ids}]"))
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes messages that were written before this instant and have been sent. Reads only the first `limit`: ids grow
/// with time, so the oldest come first. Returns how many it deleted.
pub async fn purge_sent(conn: &mut MySqlConnection, before_us: i64, limit: u32) -> Result<u64, DbError> {
    let last: Option<u64> =
        sqlx::query_scalar("SELECT MAX(id) FROM (SELECT id FROM outbox ORDER BY id LIMIT ?) AS first_ones")
            .bind(limit)
            .fetch_one(&mut *conn)
            .await?;
    let done = sqlx::query(
        "DELETE FROM outbox WHERE id <= ? AND created_us < ? \
         AND NOT EXISTS (SELECT 1 FROM outbox_unsent unsent WHERE unsent.id = outbox.id)",
    )
    .bind(last.unwrap_or(0))
    .bind(before_us)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns how many messages are unsent, and when the oldest of them was written.
pub async fn backlog(conn: &mut MySqlConnection) -> Result<(u64, Option<i64>), DbError> {
    let (unsent, oldest_us): (i64, Option<i64>) = sqlx::query_as(
        "SELECT COUNT(*), (SELECT created_us FROM outbox WHERE id = MIN(unsent.id)) FROM outbox_unsent unsent",
    )
    .fetch_one(conn)
    .await?;
    Ok((unsent.unsigned_abs(), oldest_us))
}
