//! What orders tell: a fulfilled order uses its coupon, any other end returns it.

use crate::{domain::EndedOrder, usecase::follow_orders, wire};
use sqlx::MySqlConnection;
use stampede_inbox::{HandleError, Handler, Message};
use stampede_vocab::SharedClock;
use std::{future::Future, pin::Pin};

/// Applies the messages of the order topic.
pub struct OrderHandler {
    clock: SharedClock,
}

impl OrderHandler {
    /// Changes are dated by `clock`.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }
}

impl Handler for OrderHandler {
    type Effects = ();

    fn apply<'c>(
        &'c self,
        transaction: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Pin<Box<dyn Future<Output = Result<(), HandleError>> + Send + 'c>> {
        Box::pin(async move {
            let ended = decode(batch)?;
            Ok(follow_orders(transaction, &ended, self.clock.now()).await?)
        })
    }

    fn committed(&self, (): ()) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

fn decode(batch: &[Message]) -> Result<Vec<EndedOrder>, HandleError> {
    let decoded = batch.iter().enumerate().map(|(index, message)| {
        let poison = |error: wire::WireError| HandleError::Poison { index, detail: error.to_string() };
        wire::decode(&message.message_type, &message.payload).map_err(poison)
    });
    decoded.filter_map(Result::transpose).collect()
}
