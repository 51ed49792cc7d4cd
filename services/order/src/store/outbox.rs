//! The table `outbox`: messages are appended in the transaction that changes the state.

use crate::{domain::OutgoingMessage, messages};
use stampede_db::Statements;

/// A message and the trace of its cause.
#[derive(Debug, Clone)]
pub struct Traced {
    pub outgoing: OutgoingMessage,
    /// `traceparent` of the request or message that caused it; `None` outside a trace.
    pub traceparent: Option<String>,
}

/// Encodes the messages and adds the statements that append them to the outbox, in the order given.
pub fn push_append(statements: &mut Statements, messages: Vec<Traced>) {
    let rows: Vec<_> =
        messages.into_iter().map(|traced| messages::encode(&traced.outgoing, traced.traceparent)).collect();
    stampede_outbox::push_append(statements, &rows);
}
