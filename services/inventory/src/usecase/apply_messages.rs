//! Applies a batch of messages to the ledger in one transaction, and copies the outcome to Redis after the commit.

use super::{
    Reconcile, SyncRedis,
    ledger::{lock_ledger, push_changes, syncs},
    sync_redis::EventSync,
};
use crate::{
    domain::{LedgerBatch, LedgerCommand, OrderedUnits, OutgoingMessage, Shelf, Withdrawal},
    store,
};
use futures_util::future::join_all;
use sqlx::MySqlConnection;
use stampede_db::{DbError, Statements};
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::collections::BTreeSet;

/// A command with the trace of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRequest {
    pub command: LedgerCommand,
    pub traceparent: Option<String>,
}

/// A batch of messages, grouped by kind. The requests keep their order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events that are staged, or whose window has moved.
    pub shelves: Vec<Shelf>,
    pub withdrawals: Vec<Withdrawal>,
    /// Commands of orders to the ledger.
    pub requests: Vec<LedgerRequest>,
}

/// The effects that follow the commit of the transaction.
#[derive(Debug, Default)]
pub struct Effects {
    restage: BTreeSet<EventId>,
    syncs: Vec<EventSync>,
    answered: bool,
}

/// Applies messages to the ledger. Cheap to clone.
#[derive(Clone)]
pub struct ApplyMessages {
    outbox: Outbox,
    sync: SyncRedis,
    reconcile: Reconcile,
}

impl ApplyMessages {
    /// Returns the use case. It reports to Redis by `sync` and `reconcile`.
    pub fn new(outbox: Outbox, sync: SyncRedis, reconcile: Reconcile) -> Self {
        Self { outbox, sync, reconcile }
    }

    /// Applies a batch inside the caller's transaction: first staged events, then cancellations, then the commands in
    /// their order. Writes the answers to the outbox.
    pub async fn apply(&self, conn: &mut MySqlConnection, batch: Batch) -> Result<Effects, DbError> {
        if !batch.shelves.is_empty() || !batch.withdrawals.is_empty() {
            lock_items(conn, &batch).await?;
        }
        let Batch { shelves, withdrawals, requests } = batch;
        store::stock::stage(conn, &shelves).await?;
        store::stock::withdraw(conn, &withdrawals).await?;
        store::restages::insert(conn, &shelves, &withdrawals).await?;
        let staged = shelves.iter().map(|shelf| shelf.event_id);
        let restage = staged.chain(withdrawals.iter().map(|withdrawal| withdrawal.event_id)).collect();
        if requests.is_empty() {
            return Ok(Effects { restage, ..Effects::default() });
        }
        let mut ledger = lock_requested(conn, &requests).await?;
        let now = Timestamp::now();
        let answers = answer(&mut ledger, &requests, now);
        let changes = ledger.changes();
        let mut writes = Statements::new();
        push_changes(&mut writes, &changes);
        store::outbox::push_append(&mut writes, &answers);
        writes.run(conn).await?;
        Ok(Effects { restage, syncs: syncs(&changes, [], now), answered: !answers.is_empty() })
    }

    /// Wakes the relay and copies the outcome to Redis. The sweep and the reconciler repair what fails here.
    pub async fn committed(&self, effects: Effects) {
        if effects.answered {
            self.outbox.wake();
        }
        self.sync.run(effects.syncs).await;
        let restaged = effects.restage.iter().map(|event| async move { (event, self.reconcile.restage(*event).await) });
        for (event, outcome) in join_all(restaged).await {
            if let Err(error) = outcome {
                tracing::warn!(event.id = %event, error.cause = %error, "event was not staged, the reconciler will stage it");
            }
        }
    }
}

/// Locks the items of events and orders in the order of their ids, before they are staged, withdrawn, and read for the
/// commands. The second goes by events, and a later one may go back to an item before those of an earlier one.
async fn lock_items(conn: &mut MySqlConnection, batch: &Batch) -> Result<(), DbError> {
    let withdrawn: Vec<EventId> = batch.withdrawals.iter().map(|withdrawal| withdrawal.event_id).collect();
    let orders: Vec<OrderId> = batch.requests.iter().map(|request| request.command.order_id()).collect();
    let late = batch.requests.iter().filter_map(|request| ordered(&request.command));
    let mut items: BTreeSet<ItemId> = late.flat_map(|order| &order.lines).map(|line| line.item_id).collect();
    items.extend(batch.shelves.iter().flat_map(|shelf| &shelf.items).map(|offered| offered.item.item_id));
    items.extend(store::stock::ids_of_events(conn, &withdrawn).await?);
    items.extend(store::ledger::of_orders(conn, &orders).await?.iter().map(|entry| entry.line.item_id));
    let mut locks = Statements::new();
    store::stock::push_lock(&mut locks, &items.into_iter().collect::<Vec<_>>());
    locks.run(conn).await.map(drop)
}

/// Locks the items that the commands concern, and reads the ledger.
async fn lock_requested(conn: &mut MySqlConnection, requests: &[LedgerRequest]) -> Result<LedgerBatch, DbError> {
    let orders: BTreeSet<OrderId> = requests.iter().map(|request| request.command.order_id()).collect();
    let mut buyers: BTreeSet<(ItemId, UserId)> = BTreeSet::new();
    for order in requests.iter().filter_map(|request| ordered(&request.command)) {
        buyers.extend(order.lines.iter().map(|line| (line.item_id, order.user_id)));
    }
    lock_ledger(conn, orders, buyers).await
}

fn answer(ledger: &mut LedgerBatch, requests: &[LedgerRequest], now: Timestamp) -> Vec<OutgoingMessage> {
    let answer = |LedgerRequest { command, traceparent }: &LedgerRequest| {
        let body = ledger.apply(command, now)?;
        Some(OutgoingMessage { order_id: command.order_id(), body, traceparent: traceparent.clone() })
    };
    requests.iter().filter_map(answer).collect()
}

fn ordered(command: &LedgerCommand) -> Option<&OrderedUnits> {
    match command {
        LedgerCommand::CommitAgain(order) => Some(order),
        LedgerCommand::ReleaseUnpaid(_) | LedgerCommand::Release(_) => None,
    }
}
