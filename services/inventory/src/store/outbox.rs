//! The table `outbox`.

use crate::{domain::OutgoingMessage, messages};
use stampede_db::Statements;
use stampede_outbox::OutboxMessage;

/// Adds the statements that append the messages, in the transaction that changes the state.
pub fn push_append(writes: &mut Statements, outgoing: &[OutgoingMessage]) {
    let rows: Vec<OutboxMessage> = outgoing.iter().map(messages::encode).collect();
    stampede_outbox::push_append(writes, &rows);
}
