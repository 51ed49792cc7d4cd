//! The steps of every change of the ledger: lock the items, read under the lock, write the decisions of the domain, and
//! copy them to Redis after the commit.

use super::sync_redis::{EventSync, ledger_copy};
use crate::{
    domain::{Changes, ItemChange, LedgerBatch, Titles},
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{Answers, DbError, Place, Statements};
use stampede_lua::stock::LedgerCopy;
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Attempts to lock the items of a batch whose orders gain rows meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// An order that the ledger has decided, with its event and the items that it may hold in Redis.
pub(super) type Answered = (EventId, OrderId, Vec<ItemId>);

/// Locks the items of these buyers and of the rows of these orders, and reads the ledger under the locks.
///
/// Reads the rows of the orders without a lock first, for their items. Every change of a row is made under the lock of
/// its item, so they are read again once the items are locked. If an order has gained a row of another item meanwhile,
/// that item is locked too. This breaks the lock order; the database ends one of two that deadlock, and it is retried.
pub(super) async fn lock_ledger(
    conn: &mut MySqlConnection,
    orders: BTreeSet<OrderId>,
    mut buyers: BTreeSet<(ItemId, UserId)>,
) -> Result<LedgerBatch, DbError> {
    let orders: Vec<OrderId> = orders.into_iter().collect();
    let written = store::ledger::of_orders(conn, &orders).await?;
    buyers.extend(written.iter().map(|entry| (entry.line.item_id, entry.user_id)));
    for _ in 0..MAX_ATTEMPTS {
        let mut reads = Statements::new();
        let places = LedgerPlaces::push(&mut reads, &orders, &buyers);
        let ledger = places.read(&reads.run(conn).await?)?;
        let missing = ledger.items_missing();
        if missing.is_empty() {
            return Ok(ledger);
        }
        buyers.extend(missing);
    }
    Err(DbError::inconsistent("the ledger has rows of items that there are none of, or orders keep gaining rows"))
}

/// The places of the results of the statements that lock items and read the ledger under the locks.
#[derive(Clone, Copy)]
pub(super) struct LedgerPlaces {
    items: Option<Place>,
    entries: Option<Place>,
    units: Option<Place>,
}

impl LedgerPlaces {
    /// Adds the statements that lock the items of these buyers, and read under the locks the rows of these orders,
    /// which have no other items, and the units of the buyers. Each statement sees what was committed before it, so the
    /// reads see the changes that the locks have waited for.
    pub(super) fn push(
        reads: &mut Statements,
        orders: &[OrderId],
        buyers: &BTreeSet<(ItemId, UserId)>,
    ) -> LedgerPlaces {
        let items: BTreeSet<ItemId> = buyers.iter().map(|(item_id, _)| *item_id).collect();
        LedgerPlaces {
            items: store::stock::push_lock(reads, &items.into_iter().collect::<Vec<_>>()),
            entries: store::ledger::push_of_orders(reads, orders),
            units: store::ledger::push_units_of(reads, buyers),
        }
    }

    /// Returns the ledger as these statements have read it.
    pub(super) fn read(self, answers: &Answers) -> Result<LedgerBatch, DbError> {
        let locked = store::stock::items(answers, self.items)?;
        let entries = store::ledger::entries(answers, self.entries)?;
        Ok(LedgerBatch::new(locked, entries, store::ledger::buyers_of_rows(answers, self.units)?))
    }

    /// Returns the titles of the items that these statements have read.
    pub(super) fn titles(self, answers: &Answers) -> Result<HashMap<ItemId, Arc<Titles>>, DbError> {
        store::stock::titles(answers, self.items)
    }
}

/// Adds the statements that write the decisions of the domain.
pub(super) fn push_changes(writes: &mut Statements, changes: &Changes) {
    store::stock::push_add(writes, &changes.items, &changes.entries);
    store::ledger::push_write(writes, &changes.entries, &changes.items);
}

/// Returns the changes to copy to Redis, by event: the items that changed, unless Redis has forgotten their event by
/// `now`, and the orders that were committed or refused, whose holds are dropped.
pub(super) fn syncs(changes: &Changes, answered: impl IntoIterator<Item = Answered>, now: Timestamp) -> Vec<EventSync> {
    let mut by_event: BTreeMap<EventId, EventSync> = BTreeMap::new();
    let of = |event_id| EventSync { event_id, ledger_copies: Vec::new(), answered: Vec::new() };
    let is_kept = |change: &&ItemChange| change.kept_until > now;
    for change in changes.items.iter().filter(is_kept) {
        let sync = by_event.entry(change.event_id).or_insert_with_key(|event| of(*event));
        sync.ledger_copies.push(ledger_copy(change));
    }
    for correction in changes.corrections.iter().filter(is_kept) {
        let sync = by_event.entry(correction.event_id).or_insert_with_key(|event| of(*event));
        let copy = ledger_copy(correction);
        sync.ledger_copies.push(LedgerCopy { first_version: copy.ledger.version + 1, ..copy });
    }
    for (event_id, order_id, items) in answered {
        by_event.entry(event_id).or_insert_with_key(|event| of(*event)).answered.push((order_id, items));
    }
    by_event.into_values().collect()
}
