//! Drops holds whose way into the ledger ended: the ledger has the order and Redis did not hear of it, or whoever was
//! to commit it died in between, and nobody got the answer that the units are theirs.
//!
//! Only inventory's own ledger is asked. A hold that is dropped while it is being committed after all does no harm: the
//! ledger decides, and updates Redis. Several replicas may sweep the same holds: dropping one twice changes nothing.

use super::{
    Error, SyncRedis,
    near_events::NearEvents,
    sync_redis::{EventSync, ledger_units},
};
use crate::{
    domain::{Entry, Item},
    store,
};
use futures_util::future::join_all;
use sqlx::MySqlConnection;
use stampede_db::{Conn, Database, DbError};
use stampede_lua::stock::{LedgerCopy, OpenHold, Stock};
use stampede_vocab::{EventId, ItemId, OrderId, Timestamp, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Holds that one look at Redis covers.
const HOLDS_PER_PAGE: u32 = 500;
/// Aged holds of one event that one pass takes on; the next pass goes on behind them.
const HOLDS_PER_PASS: usize = 1_000;
/// Events that are searched at a time.
const MAX_CONCURRENT_EVENTS: usize = 8;

/// The findings of one pass in one event.
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
    near: NearEvents,
    /// How old a hold must be to be looked at: a younger one is most likely being committed.
    age: Duration,
    /// Where the next pass goes on in the holds of each event.
    cursors: Mutex<HashMap<EventId, u64>>,
}

impl DropStaleHolds {
    /// Asks the ledger of this schema about holds of this age.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis, age: Duration) -> Self {
        Self { near: NearEvents::new(db.clone()), db, redis, sync, age, cursors: Mutex::default() }
    }

    /// Makes one pass over the aged holds of every event near its window: no other has any. One that fails is passed
    /// over, and a pass that is cut goes on in the next round.
    pub async fn run(&self) -> anyhow::Result<()> {
        let events = self.near.next_round().await?;
        let near: HashSet<EventId> = events.iter().copied().collect();
        self.cursors().retain(|event, _| near.contains(event));
        let (mut dropped, mut failures) = (0, Vec::new());
        for events in events.chunks(MAX_CONCURRENT_EVENTS) {
            // Before it, so that one that takes too long comes last in the next round.
            events.iter().for_each(|event| self.near.begun(*event));
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

    /// Drops the next aged holds of an event: those that the ledger knows, and those that it does not.
    async fn sweep(&self, event: EventId) -> Result<u32, Error> {
        let aged = self.next_aged(event).await?;
        if aged.holds.is_empty() {
            return Ok(0);
        }
        let uncommitted = self.drop_answered(aged).await?;
        self.drop_uncommitted(&uncommitted).await
    }

    /// Drops holds that the ledger does not know; one that was asked for again since it was found stays. Returns how
    /// many were dropped.
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

    /// Drops the holds of orders that are in the ledger, and returns the others.
    async fn drop_answered(&self, aged: AgedHolds) -> Result<AgedHolds, Error> {
        let orders = aged.orders();
        let read = |mut conn: Conn| async move {
            let entries = store::ledger::of_orders(&mut conn, &orders).await?;
            let ledger_copies = ledger_copies(&mut conn, &entries).await?;
            Ok::<_, DbError>((entries, ledger_copies))
        };
        let (entries, ledger_copies) = self.db.run("ledger_of_holds", read).await?;
        let ledgered: BTreeSet<OrderId> = entries.iter().map(|entry| entry.order_id).collect();
        if !ledgered.is_empty() {
            let answered = aged.holds.iter().filter(|open| ledgered.contains(&open.order_id));
            let answered = answered.map(|open| (open.order_id, open.hold.items())).collect();
            self.sync.run(vec![EventSync { event_id: aged.event_id, ledger_copies, answered }]).await;
        }
        let holds = aged.holds.into_iter().filter(|open| !ledgered.contains(&open.order_id)).collect();
        Ok(AgedHolds { holds, ..aged })
    }
}

/// What the ledger says of the items and buyers of these rows. The versions are read before the buyers, so these are at
/// least as new.
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
        // It has what these buyers have, and of no change what others do.
        first_version: item.committed.version + 1,
        buyers: buyers.remove(&item.id()).unwrap_or_default(),
        all_buyers: false,
    };
    Ok(items.into_iter().map(ledger_copy).collect())
}
