//! Consumes the messages of event and order. Applies a batch to the ledger in one transaction.

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
    /// Returns a consumer that calls this use case.
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
        Box::pin(async move { Ok(self.apply.apply(conn, group(batch)?).await?) })
    }

    fn committed(&self, effects: Effects) -> Boxed<'_, ()> {
        Box::pin(self.apply.committed(effects))
    }
}

fn group(batch: &[Message]) -> Result<Batch, HandleError> {
    let mut grouped = Batch::default();
    for (index, incoming) in decode(batch, |message| messages::decode(&message.message_type, &message.payload))? {
        match incoming {
            Incoming::Shelve(shelf) => grouped.shelves.push(shelf),
            Incoming::Withdraw(withdrawal) => grouped.withdrawals.push(withdrawal),
            Incoming::Ledger(command) => {
                grouped.requests.push(LedgerRequest { command, traceparent: batch[index].traceparent.clone() });
            }
        }
    }
    Ok(grouped)
}
