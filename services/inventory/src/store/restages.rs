//! The table `restages`: events whose items or window have changed and may not have been copied to Redis yet.

use crate::domain::{Shelf, Withdrawal};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statement};
use stampede_vocab::EventId;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Notes that these versions are to be copied to Redis, in the transaction that writes them.
pub async fn insert(conn: &mut MySqlConnection, shelves: &[Shelf], withdrawals: &[Withdrawal]) -> Result<(), DbError> {
    let staged = shelves.iter().map(|shelf| (shelf.event_id, shelf.event_version));
    let withdrawn = withdrawals.iter().map(|withdrawal| (withdrawal.event_id, withdrawal.event_version));
    // In key order, in which all transactions lock them.
    let mut newest: BTreeMap<EventId, i64> = BTreeMap::new();
    for (event, version) in staged.chain(withdrawn) {
        let known = newest.entry(event).or_insert(version);
        *known = version.max(*known);
    }
    if newest.is_empty() {
        return Ok(());
    }
    let mut query = Statement::new("INSERT INTO restages (event_id, event_version) ");
    query.push_values(newest, |mut row, (event, version)| {
        row.push_bind(event.uuid()).push_bind(version);
    });
    query.push(" ON DUPLICATE KEY UPDATE event_version = GREATEST(event_version, VALUES(event_version))");
    query.execute(conn).await?;
    Ok(())
}

/// Returns up to `limit` events that are to be copied to Redis.
pub async fn pending(conn: &mut MySqlConnection, limit: u32) -> Result<Vec<EventId>, DbError> {
    let rows: Vec<(Uuid,)> =
        sqlx::query_as("SELECT event_id FROM restages ORDER BY event_id LIMIT ?").bind(limit).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id,)| EventId::from_uuid(id)).collect())
}

/// Deletes an event that was copied to Redis at this version.
pub async fn delete(conn: &mut MySqlConnection, event: EventId, version: i64) -> Result<(), DbError> {
    sqlx::query("DELETE FROM restages WHERE event_id = ? AND event_version <= ?")
        .bind(event.uuid())
        .bind(version)
        .execute(conn)
        .await?;
    Ok(())
}
