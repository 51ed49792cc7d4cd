//! Consumes the messages of event, inventory and payment.

use crate::{
    domain::Cancellation,
    messages::{self, Incoming},
    usecase::{Advanced, Change, EventCancellations, Transitions},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;

/// Applies the messages of the other services to their orders.
pub struct Consumer {
    transitions: Transitions,
    cancellations: EventCancellations,
}

/// A batch, sorted by what it concerns.
#[derive(Default)]
struct Sorted {
    changes: Vec<Change>,
    /// The place in the batch of each change.
    indexes: Vec<usize>,
    cancellations: Vec<Cancellation>,
}

impl Consumer {
    /// Changes orders through these transitions, and notes cancelled events.
    pub fn new(transitions: Transitions, cancellations: EventCancellations) -> Self {
        Self { transitions, cancellations }
    }
}

fn sort(batch: &[Message]) -> Result<Sorted, HandleError> {
    let mut sorted = Sorted::default();
    for (index, incoming) in decode(batch, |message| messages::decode(&message.message_type, &message.payload))? {
        match incoming {
            Incoming::Order(order, input) => {
                sorted.changes.push(Change { order, input, traceparent: batch[index].traceparent.clone() });
                sorted.indexes.push(index);
            }
            Incoming::EventCancelled(cancellation) => sorted.cancellations.push(cancellation),
        }
    }
    Ok(sorted)
}

impl Handler for Consumer {
    type Effects = Advanced;

    /// Nothing but the state of an order decides what a message does, so one that comes again, however late, finds its
    /// order moved on and changes nothing. A cancelled event is noted with its version; its orders are ended by a
    /// worker.
    ///
    /// A message about an order that was never written becomes a dead letter: orders are never deleted, so an operator
    /// has to look at it, and it may be about money. So does one about an order whose rows make no order. One of a
    /// newer version waits for a replica of that version.
    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Advanced, HandleError>> {
        Box::pin(async move {
            let Sorted { changes, indexes, cancellations } = sort(batch)?;
            // In this order, as in every other change: the row of a cancelled event that a batch kept while it waits
            // for an order would be waited for by whoever changes that order.
            let locked = self.transitions.lock(conn, &changes).await?;
            self.cancellations.note(conn, &cancellations).await?;
            let advanced = self.transitions.apply(conn, locked, &changes).await?;
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
