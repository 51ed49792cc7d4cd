//! Takes in what inventory and payment answer.

use crate::{
    usecase::{Advanced, Change, Transitions},
    wire,
};
use sqlx::MySqlConnection;
use stampede_inbox::{HandleError, Handler, Message};
use std::{future::Future, pin::Pin};

/// A future that borrows what it was called with.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Applies the answers of the other services to their orders.
pub struct Answers {
    transitions: Transitions,
}

impl Answers {
    /// Changes orders through these transitions.
    pub fn new(transitions: Transitions) -> Self {
        Self { transitions }
    }
}

/// The changes that messages ask for, and the place of the message of each.
#[derive(Default)]
struct Decoded {
    changes: Vec<Change>,
    places: Vec<usize>,
}

fn decode(batch: &[Message]) -> Result<Decoded, HandleError> {
    let mut decoded = Decoded::default();
    for (index, message) in batch.iter().enumerate() {
        let known = wire::decode(&message.message_type, &message.payload)
            .map_err(|error| HandleError::Poison { index, detail: error.to_string() })?;
        if let Some((order, input)) = known {
            decoded.changes.push(Change { order, input, traceparent: message.traceparent.clone() });
            decoded.places.push(index);
        }
    }
    Ok(decoded)
}

impl Handler for Answers {
    type Effects = Advanced;

    /// An order that was never written makes its message a dead letter: orders are never deleted, so somebody has to
    /// look at it, and it may be about money.
    fn apply<'c>(
        &'c self,
        transaction: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Advanced, HandleError>> {
        Box::pin(async move {
            let Decoded { changes, places } = decode(batch)?;
            let advanced = self.transitions.apply(transaction, &changes).await?;
            match advanced.first_unknown() {
                Some(unknown) => {
                    let detail = format!("order {} was never written", changes[unknown].order);
                    Err(HandleError::Poison { index: places[unknown], detail })
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
