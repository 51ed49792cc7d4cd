//! The table `outbox`.

use crate::{domain::OutgoingMessage, messages};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_outbox::OutboxMessage;

/// Appends the messages inside the transaction that makes them true.
pub async fn append(conn: &mut MySqlConnection, outgoing: &[OutgoingMessage]) -> Result<(), DbError> {
    let rows: Vec<OutboxMessage> = outgoing.iter().map(messages::encode).collect();
    stampede_outbox::append(conn, &rows).await
}
