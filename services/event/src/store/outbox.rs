//! The service's messages, written in the transaction that they tell of.

use crate::{domain::Outgoing, wire};
use sqlx::MySqlConnection;
use stampede_db::DbError;

/// Appends the messages in their order.
pub async fn append(conn: &mut MySqlConnection, messages: &[Outgoing]) -> Result<(), DbError> {
    let encoded: Vec<_> = messages.iter().map(wire::encode).collect();
    stampede_outbox::append(conn, &encoded).await
}
