//! The service's messages, written in the transaction that changes the state.

use crate::{domain::OutgoingMessage, messages};
use sqlx::MySqlConnection;
use stampede_db::DbError;

/// Appends the messages in their order.
pub async fn append(conn: &mut MySqlConnection, outgoing: &[OutgoingMessage]) -> Result<(), DbError> {
    let rows: Vec<_> = outgoing.iter().map(messages::encode).collect();
    stampede_outbox::append(conn, &rows).await
}
