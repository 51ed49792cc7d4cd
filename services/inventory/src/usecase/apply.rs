//! Applying a batch of messages to the ledger inside one transaction, and settling Redis after it.

use crate::{
    domain::{Ask, Book, Changes, OrderedUnits, Outgoing, Shelf, Withdrawal},
    store,
    usecase::{
        Inventory,
        mirror::{Settlement, mirror},
    },
};
use futures_util::future::join_all;
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::collections::{BTreeMap, BTreeSet};

/// What an order asks, with the trace in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What it asks of the ledger.
    pub ask: Ask,
    /// Trace of the message.
    pub traceparent: Option<String>,
}

/// What is left to do in Redis once the transaction has committed.
#[derive(Debug, Default)]
pub struct Effects {
    restage: BTreeSet<EventId>,
    settlements: Vec<Settlement>,
    answered: bool,
}

/// Applies a batch inside the caller's transaction: shelves, then cancellations, then what orders ask, in the order
/// given. Writes the answers to the outbox.
pub async fn apply(
    conn: &mut MySqlConnection,
    shelves: &[Shelf],
    withdrawals: &[Withdrawal],
    asked: &[Asked],
    now: Timestamp,
) -> Result<Effects, DbError> {
    store::stock::shelve(conn, shelves).await?;
    store::stock::withdraw(conn, withdrawals).await?;
    let restaged = shelves.iter().map(|shelf| shelf.event_id);
    let restage = restaged.chain(withdrawals.iter().map(|withdrawal| withdrawal.event_id)).collect();
    if asked.is_empty() {
        return Ok(Effects { restage, ..Effects::default() });
    }
    let mut book = open_book(conn, asked).await?;
    let answers = answer(&mut book, asked, now);
    let changes = book.changes();
    store::stock::add(conn, &changes.items).await?;
    store::ledger::write(conn, &changes.entries).await?;
    store::outbox::append(conn, &answers).await?;
    Ok(Effects { restage, settlements: settlements(&changes, asked), answered: !answers.is_empty() })
}

impl Inventory {
    /// Tells Redis and wakes the relay. What fails here is mended by the sweep and the reconciler.
    pub async fn settle_effects(&self, effects: Effects) {
        if effects.answered {
            self.outbox.wake();
        }
        self.settle(&effects.settlements).await;
        let restaged = effects.restage.iter().map(|event| async move { (event, self.reconcile(*event).await) });
        for (event_id, outcome) in join_all(restaged).await {
            if let Err(error) = outcome {
                tracing::warn!(%error, %event_id, "event was not staged, the reconciler will stage it");
            }
        }
    }
}

/// Locks every item that the batch concerns, and reads under that lock what its orders and buyers have.
///
/// The items of orders that give back are read first, without a lock: the rows of an order are only written by whoever
/// applies its messages, which is us.
async fn open_book(conn: &mut MySqlConnection, asked: &[Asked]) -> Result<Book, DbError> {
    let orders: BTreeSet<OrderId> = asked.iter().map(|asked| order_id(&asked.ask)).collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let written = store::ledger::of_orders(conn, &orders).await?;

    let mut buyers: BTreeSet<(ItemId, UserId)> =
        written.iter().map(|entry| (entry.line.item_id, entry.user_id)).collect();
    for order in asked.iter().filter_map(|asked| ordered(&asked.ask)) {
        buyers.extend(order.lines.iter().map(|line| (line.item_id, order.user_id)));
    }
    let items: BTreeSet<ItemId> = buyers.iter().map(|(item_id, _)| *item_id).collect();
    let locked = store::stock::lock(conn, &items.into_iter().collect::<Vec<_>>()).await?;
    let entries = store::ledger::of_orders(conn, &orders).await?;
    let units = store::ledger::units_of(conn, &buyers).await?;
    Ok(Book::new(locked, entries, units))
}

fn answer(book: &mut Book, asked: &[Asked], now: Timestamp) -> Vec<Outgoing> {
    let answer = |Asked { ask, traceparent }: &Asked| {
        let answer = book.apply(ask, now)?;
        let sequence = if matches!(ask, Ask::CommitAgain(_)) { 2 } else { 1 };
        Some(Outgoing { order_id: order_id(ask), sequence, answer, traceparent: traceparent.clone() })
    };
    asked.iter().filter_map(answer).collect()
}

/// What Redis is told of the batch, by event: the items that changed, and the orders that were answered either way.
fn settlements(changes: &Changes, asked: &[Asked]) -> Vec<Settlement> {
    let mut by_event: BTreeMap<EventId, Settlement> = BTreeMap::new();
    let of = |event_id| Settlement { event_id, mirrors: Vec::new(), answered: Vec::new() };
    for change in &changes.items {
        by_event.entry(change.event_id).or_insert_with_key(|event| of(*event)).mirrors.push(mirror(change));
    }
    for order in asked.iter().filter_map(|asked| ordered(&asked.ask)) {
        let items = order.lines.iter().map(|line| line.item_id).collect();
        let settlement = by_event.entry(order.event_id).or_insert_with_key(|event| of(*event));
        settlement.answered.push((order.order_id, items));
    }
    by_event.into_values().collect()
}

fn order_id(ask: &Ask) -> OrderId {
    match ask {
        Ask::Commit(order) | Ask::CommitAgain(order) => order.order_id,
        Ask::Release(order_id) => *order_id,
    }
}

fn ordered(ask: &Ask) -> Option<&OrderedUnits> {
    match ask {
        Ask::Commit(order) | Ask::CommitAgain(order) => Some(order),
        Ask::Release(_) => None,
    }
}
