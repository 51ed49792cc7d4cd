//! Messages of events and orders into the ledger, a batch in one transaction.

use crate::{
    domain::{Shelf, Withdrawal},
    usecase::{Asked, Effects, Inventory, apply},
    wire::{self, Incoming},
};
use sqlx::MySqlConnection;
use stampede_inbox::{HandleError, Handler, Message};
use std::{future::Future, pin::Pin};

/// Applies messages to the ledger.
pub struct LedgerConsumer {
    inventory: Inventory,
}

/// A batch, sorted by what it concerns. Asks keep their order.
#[derive(Default)]
struct Sorted {
    shelves: Vec<Shelf>,
    withdrawals: Vec<Withdrawal>,
    asked: Vec<Asked>,
}

impl LedgerConsumer {
    /// Keeps the ledger of this inventory.
    pub fn new(inventory: Inventory) -> Self {
        Self { inventory }
    }
}

impl Handler for LedgerConsumer {
    type Effects = Effects;

    fn apply<'c>(
        &'c self,
        transaction: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Pin<Box<dyn Future<Output = Result<Effects, HandleError>> + Send + 'c>> {
        Box::pin(async move {
            let Sorted { shelves, withdrawals, asked } = sort(batch)?;
            let now = self.inventory.clock().now();
            Ok(apply(transaction, &shelves, &withdrawals, &asked, now).await?)
        })
    }

    fn committed(&self, effects: Effects) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.inventory.settle_effects(effects))
    }
}

fn sort(batch: &[Message]) -> Result<Sorted, HandleError> {
    let mut sorted = Sorted::default();
    for (index, message) in batch.iter().enumerate() {
        let incoming = wire::decode(&message.message_type, &message.payload)
            .map_err(|error| HandleError::Poison { index, detail: error.to_string() })?;
        match incoming {
            Some(Incoming::Shelve(shelf)) => sorted.shelves.push(shelf),
            Some(Incoming::Withdraw(withdrawal)) => sorted.withdrawals.push(withdrawal),
            Some(Incoming::Ledger(ask)) => {
                sorted.asked.push(Asked { ask, traceparent: message.traceparent.clone() });
            }
            None => {}
        }
    }
    Ok(sorted)
}
