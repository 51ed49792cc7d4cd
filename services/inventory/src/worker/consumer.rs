//! Consumes the messages of event and order: they are applied to the ledger, a batch in one transaction.

use crate::{
    messages::{self, Incoming},
    usecase::{ApplyMessages, Batch, Effects, LedgerRequest},
};
use sqlx::MySqlConnection;
use stampede_inbox::{Boxed, HandleError, Handler, Message};
use stampede_service::decode;

/// Applies messages to the ledger.
pub struct Consumer {
    apply: ApplyMessages,
}

impl Consumer {
    /// Applies messages by this use case.
    pub fn new(apply: ApplyMessages) -> Self {
        Self { apply }
    }
}

impl Handler for Consumer {
    type Effects = Effects;

    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<Effects, HandleError>> {
        Box::pin(async move { Ok(self.apply.apply(conn, sort(batch)?).await?) })
    }

    fn committed(&self, effects: Effects) -> Boxed<'_, ()> {
        Box::pin(self.apply.committed(effects))
    }
}

fn sort(batch: &[Message]) -> Result<Batch, HandleError> {
    let mut sorted = Batch::default();
    for (index, incoming) in decode(batch, |message| messages::decode(&message.message_type, &message.payload))? {
        match incoming {
            Incoming::Shelve(shelf) => sorted.shelves.push(shelf),
            Incoming::Withdraw(withdrawal) => sorted.withdrawals.push(withdrawal),
            Incoming::Ledger(ask) => {
                sorted.requests.push(LedgerRequest { ask, traceparent: batch[index].traceparent.clone() });
            }
        }
    }
    Ok(sorted)
}
