//! Consumes the messages of inventory and payment.

use crate::{
    messages,
    usecase::{Advanced, Change, Transitions},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;

/// Applies the messages of the other services to their orders.
pub struct Consumer {
    transitions: Transitions,
}

impl Consumer {
    /// Changes orders through these transitions.
    pub fn new(transitions: Transitions) -> Self {
        Self { transitions }
    }
}

fn change(message: &Message) -> Result<Option<Change>, messages::DecodeError> {
    let decoded = messages::decode(&message.message_type, &message.payload)?;
    Ok(decoded.map(|(order, input)| Change { order, input, traceparent: message.traceparent.clone() }))
}

impl Handler for Consumer {
    type Effects = Advanced;

    /// Nothing but the state of an order decides what a message does, so one that comes again, however late, finds its
    /// order moved on and changes nothing.
    ///
    /// A message about an order that was never written becomes a dead letter: orders are never deleted, so an operator
    /// has to look at it, and it may be about money. So does one about an order whose rows make no order. One of a newer
    /// version waits for a replica of that version.
    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Advanced, HandleError>> {
        Box::pin(async move {
            let (indexes, changes): (Vec<usize>, Vec<Change>) = decode(batch, change)?.into_iter().unzip();
            let advanced = self.transitions.apply(conn, &changes).await?;
            if let Some((unreadable, error)) = advanced.first_unreadable() {
                return Err(match error {
                    DbError::Newer(_) => HandleError::Db(error.clone()),
                    _ => HandleError::Poison { index: indexes[unreadable], detail: error.to_string() },
                });
            }
            match advanced.first_unknown() {
                Some(unknown) => {
                    let detail = format!("order {} was never written", changes[unknown].order);
                    Err(HandleError::Poison { index: indexes[unknown], detail })
                }
                None => Ok(advanced),
            }
        })
    }

    fn committed(&self, advanced: Advanced) -> Boxed<'_, ()> {
        Box::pin(async move {
            self.transitions.committed(advanced);
        })
    }
}
