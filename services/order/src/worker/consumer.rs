//! Consumes the messages of event, inventory and payment.

use crate::{
    domain::Cancellation,
    messages::{self, Incoming},
    usecase::{Advanced, Change, EventCancellations, Transitions},
};
use sqlx::MySqlConnection;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;

/// Applies the messages of the other services to their orders.
pub struct Consumer {
    transitions: Transitions,
    cancellations: EventCancellations,
}

#[derive(Default)]
struct DecodedBatch {
    changes: Vec<Change>,
    /// The index in the batch of each change.
    indexes: Vec<usize>,
    cancellations: Vec<Cancellation>,
}

impl Consumer {
    /// Changes orders through these transitions, and stores cancellations.
    pub fn new(transitions: Transitions, cancellations: EventCancellations) -> Self {
        Self { transitions, cancellations }
    }
}

fn decode_batch(batch: &[Message]) -> Result<DecodedBatch, HandleError> {
    let mut decoded = DecodedBatch::default();
    for (index, incoming) in decode(batch, |message| messages::decode(&message.message_type, &message.payload))? {
        match incoming {
            Incoming::Order(order, input) => {
                decoded.changes.push(Change { order, input, traceparent: batch[index].traceparent.clone() });
                decoded.indexes.push(index);
            }
            Incoming::EventCancelled(cancellation) => decoded.cancellations.push(cancellation),
        }
    }
    Ok(decoded)
}

impl Handler for Consumer {
    type Effects = Advanced;

    /// The state of an order alone decides the effect of a message, so a duplicate, however late, finds the order
    /// changed and has no effect. A cancellation is stored with its version; a worker ends the orders.
    ///
    /// A message about an order that was never written becomes a dead letter: orders are never deleted, and it may be
    /// about money, so an operator has to look at it. So does a message about an order whose rows are inconsistent. If
    /// a newer version wrote the rows, the message waits for a replica of that version.
    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Advanced, HandleError>> {
        Box::pin(async move {
            let DecodedBatch { changes, indexes, cancellations } = decode_batch(batch)?;
            // The same lock order as in every other change. In the reverse order, a batch that waits for an order would
            // hold the row of a cancelled event, and block every change of an order of that event.
            let locked = self.transitions.lock(conn, &changes).await?;
            self.cancellations.note(conn, &cancellations).await?;
            let advanced = self.transitions.apply(conn, locked, &changes).await?;
            if let Some((unreadable, error)) = advanced.first_unreadable() {
                return Err(HandleError::of_row(indexes[unreadable], error.clone()));
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
