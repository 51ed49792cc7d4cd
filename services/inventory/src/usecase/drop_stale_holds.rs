//! Drops stale holds: the ledger has the order and the copy to Redis was lost, or the process that was to commit it
//! died, and no buyer was told that the units are theirs.
//!
//! Reads only inventory's own ledger. Dropping a hold that is being committed after all does no harm: the ledger
//! decides, and updates Redis. Dropping is idempotent, so several replicas may sweep the same holds.

use super::{
    Error, SyncRedis,
    active_events::ActiveEvents,
    sync_redis::{EventSync, ledger_units},
};
use crate::{
    domain::{Entry, Item},
    store::{self, ledger::StoredEntry},
};
use futures_util::future::join_all;
use sqlx::MySqlConnection;
use stampede_db::{Conn, Database, DbError};
use stampede_lua::stock::{LedgerCopy, OpenHold, Stock};
use stampede_service::OnceAMinute;
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Holds read by one call to Redis.
const HOLDS_PER_PAGE: u32 = 500;
/// Most aged holds of one event that one pass handles; the next pass continues after them.
const HOLDS_PER_PASS: usize = 1_000;
/// Events that are swept at a time.
const MAX_CONCURRENT_EVENTS: usize = 8;

static UNREADABLE_LINES: OnceAMinute<OrderId> = OnceAMinute::new();

/// The aged holds of one event that one pass found.
#[derive(Debug)]
struct AgedHolds {
    event_id: EventId,
    holds: Vec<OpenHold>,
}

impl AgedHolds {
    fn orders(&self) -> Vec<OrderId> {
        self.holds.iter().map(|open| open.order_id).collect()
    }
}

pub struct DropStaleHolds {
    db: Database,
    redis: Stock,
    sync: SyncRedis,
    active: ActiveEvents,
    /// Age from which on a hold is stale: a younger one is most likely being committed.
    age: Duration,
    /// Cursors of the next pass in the holds of each event.
    cursors: Mutex<HashMap<EventId, u64>>,
}

impl DropStaleHolds {
    /// Returns the sweep of holds older than `age`, against the ledger of this schema.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis, age: Duration) -> Self {
        Self { active: ActiveEvents::new(db.clone()), db, redis, sync, age, cursors: Mutex::default() }
    }

    /// Makes one pass over the aged holds of every active event: no other event has any. An event that fails is
    /// skipped, and a pass that is cut short resumes in the next round.
    pub async fn run(&self) -> anyhow::Result<()> {
        let events = self.active.next_round().await?;
        let active: HashSet<EventId> = events.iter().copied().collect();
        self.cursors().retain(|event, _| active.contains(event));
        let (mut dropped, mut failures) = (0, Vec::new());
        for events in events.chunks(MAX_CONCURRENT_EVENTS) {
            // Before the sweep, so that an event that takes too long comes last in the next round.
            events.iter().for_each(|event| self.active.visit(*event));
            let swept = join_all(events.iter().map(|event| self.sweep(*event))).await;
            for (event, outcome) in events.iter().zip(swept) {
                match outcome {
                    Ok(count) => dropped += count,
                    Err(error) => failures.push((*event, error)),
                }
            }
        }
        if dropped > 0 {
            tracing::info!(hold.count = dropped, "holds that were never committed were dropped");
        }
        if let Some((event, error)) = failures.first() {
            let count = failures.len();
            tracing::warn!(event.id = %event, event.count = count, error.cause = %error, "holds of events could not be swept, trying again");
        }
        Ok(())
    }

    fn cursors(&self) -> MutexGuard<'_, HashMap<EventId, u64>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the next aged holds of an event: the committed and the uncommitted ones.
    async fn sweep(&self, event: EventId) -> Result<u32, Error> {
        let aged = self.next_aged(event).await?;
        if aged.holds.is_empty() {
            return Ok(0);
        }
        let uncommitted = self.drop_committed(aged).await?;
        self.drop_uncommitted(&uncommitted).await
    }

    /// Drops uncommitted holds, but those that were requested again since they were read. Returns how many were
    /// dropped.
    async fn drop_uncommitted(&self, aged: &AgedHolds) -> Result<u32, Error> {
        let holds = aged.holds.iter().map(|open| (open.order_id, open.hold.held_at));
        let holds: Vec<(OrderId, Timestamp)> = holds.collect();
        Ok(self.redis.release(aged.event_id, &holds).await?)
    }

    async fn next_aged(&self, event: EventId) -> Result<AgedHolds, Error> {
        let mut aged = AgedHolds { event_id: event, holds: Vec::new() };
        let mut cursor = self.cursors().remove(&event).unwrap_or(0);
        while aged.holds.len() < HOLDS_PER_PASS {
            let page = self.redis.aged_holds(event, cursor, HOLDS_PER_PAGE, self.age).await?;
            for error in &page.unreadable {
                tracing::warn!(event.id = %event, error.cause = %error, "a hold is passed over");
            }
            aged.holds.extend(page.holds);
            let Some(next) = page.next else { return Ok(aged) };
            cursor = next;
        }
        self.cursors().insert(event, cursor);
        Ok(aged)
    }

    /// Drops the holds of orders that are in the ledger, and returns the others. Leaves out those of orders that cannot
    /// be read there: they stay.
    async fn drop_committed(&self, mut aged: AgedHolds) -> Result<AgedHolds, Error> {
        let orders = aged.orders();
        let read = |mut conn: Conn| async move {
            let (entries, unreadable) = divided(store::ledger::each_of_orders(&mut conn, &orders).await?);
            let ledger_copies = ledger_copies(&mut conn, &entries).await?;
            Ok::<_, DbError>((entries, unreadable, ledger_copies))
        };
        let (entries, unreadable, ledger_copies) = self.db.run("ledger_of_holds", read).await?;
        warn_of_unreadable(&unreadable);
        aged.holds.retain(|open| !unreadable.contains_key(&open.order_id));
        let committed: BTreeSet<OrderId> = entries.iter().map(|entry| entry.order_id).collect();
        if !committed.is_empty() {
            let answered = aged.holds.iter().filter(|open| committed.contains(&open.order_id));
            let answered = answered.map(|open| (open.order_id, open.hold.items())).collect();
            self.sync.run(vec![EventSync { event_id: aged.event_id, ledger_copies, answered }]).await;
        }
        let holds = aged.holds.into_iter().filter(|open| !committed.contains(&open.order_id)).collect();
        Ok(AgedHolds { holds, ..aged })
    }
}

/// Returns the rows, and the orders that have one that cannot be read, each with why.
fn divided(rows: Vec<(OrderId, StoredEntry)>) -> (Vec<Entry>, BTreeMap<OrderId, DbError>) {
    let (mut entries, mut unreadable) = (Vec::with_capacity(rows.len()), BTreeMap::new());
    for (order_id, entry) in rows {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(error) => drop(unreadable.insert(order_id, error)),
        }
    }
    (entries, unreadable)
}

/// Logs one line for all orders that are due, and each order once a minute: every pass meets them.
fn warn_of_unreadable(unreadable: &BTreeMap<OrderId, DbError>) {
    let due: Vec<_> = unreadable.iter().filter(|(order_id, _)| UNREADABLE_LINES.is_due(**order_id)).collect();
    if let Some((order_id, error)) = due.first() {
        tracing::warn!(
            order.id = %order_id, order.count = due.len(), error.cause = %error,
            "holds are kept, since their orders cannot be read in the ledger"
        );
    }
}

/// Returns the ledger's state of the items and buyers of these rows. Reads the versions before the buyers, so these are
/// at least as new.
async fn ledger_copies(conn: &mut MySqlConnection, entries: &[Entry]) -> Result<Vec<LedgerCopy>, DbError> {
    let pairs: BTreeSet<(ItemId, UserId)> = entries.iter().map(|entry| (entry.line.item_id, entry.user_id)).collect();
    let ids: BTreeSet<ItemId> = pairs.iter().map(|(item_id, _)| *item_id).collect();
    let items = store::stock::of_items(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    let units = store::ledger::units_of(conn, &pairs).await?;
    let mut buyers: BTreeMap<ItemId, Vec<(UserId, i32)>> = BTreeMap::new();
    for pair @ (item_id, user_id) in pairs {
        buyers.entry(item_id).or_default().push((user_id, units.get(&pair).copied().unwrap_or(0)));
    }
    let ledger_copy = |item: Item| LedgerCopy {
        item_id: item.id(),
        ledger: ledger_units(item.committed),
        // It has the units of these buyers only, and so covers no change.
        first_version: item.committed.version + 1,
        buyers: buyers.remove(&item.id()).unwrap_or_default(),
        all_buyers: false,
    };
    Ok(items.into_iter().map(ledger_copy).collect())
}
