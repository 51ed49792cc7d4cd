//! The table `outbox`.

use crate::{domain::Outgoing, wire};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_outbox::OutboxMessage;

/// Writes what is to be told inside the transaction that makes it true.
pub async fn append(conn: &mut MySqlConnection, messages: &[Outgoing]) -> Result<(), DbError> {
    let rows: Vec<OutboxMessage> = messages.iter().map(wire::encode).collect();
    stampede_outbox::append(conn, &rows).await
}
