//! The table `outbox`: messages are appended in the transaction that changes the state.

use crate::{domain::OutgoingMessage, messages};
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statements};

/// Appends the messages in their order.
pub async fn append(conn: &mut MySqlConnection, outgoing: &[OutgoingMessage]) -> Result<(), DbError> {
    let mut statements = Statements::new();
    push_append(&mut statements, outgoing);
    statements.run(conn).await.map(drop)
}

/// Adds the statements that append the messages in their order.
pub fn push_append(statements: &mut Statements, outgoing: &[OutgoingMessage]) {
    let rows: Vec<_> = outgoing.iter().map(messages::encode).collect();
    stampede_outbox::push_append(statements, &rows);
}
