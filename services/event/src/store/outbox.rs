//! The table `outbox`: messages are appended in the transaction that changes the state.

use crate::{domain::OutgoingMessage, messages};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statements};

/// Adds the statements that append the messages in order.
pub fn push_append(writes: &mut Statements, outgoing: &[OutgoingMessage]) {
    let rows: Vec<_> = outgoing.iter().map(messages::encode).collect();
    stampede_outbox::push_append(writes, &rows);
}

/// Appends the messages in order.
pub async fn append(conn: &mut MySqlConnection, outgoing: &[OutgoingMessage]) -> Result<(), DbError> {
    let mut writes = Statements::new();
    push_append(&mut writes, outgoing);
    writes.run(conn).await.map(drop)
}
