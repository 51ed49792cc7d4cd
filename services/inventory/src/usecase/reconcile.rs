//! Repairs Redis by the ledger: after a change was not copied, after Redis was lost, and when an event is staged.
//!
//! Everything that is copied carries the version of its row, so this may run beside the consumer and beside other
//! replicas. An item that Redis lost gets its buyers first and its total last: until then it is NOT_READY.

use super::{
    COMPARED_AFTER_CLOSING, Error, SyncRedis,
    sync_redis::{copied, ledger_units},
};
use crate::{
    domain::{Drift, Item, Repairs},
    store,
};
use futures_util::{StreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_lua::stock::{LedgerCopy, Stock};
use stampede_vocab::{EventId, ItemId, Timestamp, UserId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Buyers that are copied in one call.
const BATCH_SIZE: u32 = 1_000;
/// Events that are compared at a time.
const MAX_CONCURRENT_EVENTS: usize = 8;
/// Arrivals that are skipped when Redis lost an event: orders that are not in the ledger yet may have some of them.
const ARRIVALS_SKIPPED: i64 = 1_000_000;

/// The version of the ledger's row of each item, as a pass saw it.
type LedgerVersions = HashMap<ItemId, i64>;

/// Compares Redis with the ledger, and repairs it. Clones share what the last pass over all events saw.
#[derive(Clone)]
pub struct Reconcile {
    db: Database,
    redis: Stock,
    sync: SyncRedis,
    seen: Arc<Mutex<Arc<LedgerVersions>>>,
}

impl Reconcile {
    /// Repairs this Redis by this schema.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis) -> Self {
        Self { db, redis, sync, seen: Arc::default() }
    }

    /// Compares Redis with the ledger for one event, and repairs it. Returns what differed.
    pub async fn run(&self, event: EventId) -> Result<Vec<Drift>, Error> {
        let items = self.items_of(event).await?;
        if items.is_empty() {
            return Err(Error::EventNotFound(event));
        }
        self.compare(&items, |item| item.committed.version).await
    }

    async fn items_of(&self, event: EventId) -> Result<Vec<Item>, DbError> {
        self.db
            .run("items_of_event", |mut conn| async move { store::stock::of_events(&mut conn, &[event]).await })
            .await
    }

    /// Compares every event that may still change, and repairs what has been wrong since the pass before; what is newer
    /// may still be on its way.
    pub async fn run_all(&self) -> Result<(), Error> {
        let after = Timestamp::now().minus(COMPARED_AFTER_CLOSING);
        let items: Vec<Item> = self
            .db
            .run("items_on_sale", |mut conn| async move { store::stock::closing_after(&mut conn, after).await })
            .await?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let events = items.chunk_by(|one, next| one.event_id == next.event_id);
        let compared = stream::iter(events);
        compared.for_each_concurrent(MAX_CONCURRENT_EVENTS, |event| self.reconcile_seen(event, &seen)).await;
        let versions = items.iter().map(|item| (item.id(), item.committed.version)).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(versions);
        Ok(())
    }

    async fn reconcile_seen(&self, items: &[Item], seen: &LedgerVersions) {
        let event_id = items[0].event_id;
        let settled = |item: &Item| seen.get(&item.id()).copied().unwrap_or(0);
        if let Err(error) = self.compare(items, settled).await {
            tracing::warn!(event.id = %event_id, error.cause = %error, "redis could not be compared with the ledger");
        }
    }

    async fn compare(&self, items: &[Item], settled: impl Fn(&Item) -> i64) -> Result<Vec<Drift>, Error> {
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let event_id = first.event_id;
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.redis.snapshot(event_id, &ids).await?;
        let copies: Vec<_> = snapshot.items.iter().map(|item| item.as_ref().map(copied)).collect();
        let compared = snapshot.event.as_ref().filter(|event| event.is_compared);
        let staged_version = compared.map(|event| event.event_version);
        // Of a server that has started anew the ledger is read after it: what came between was told to the one before.
        let newer = if compared.is_some() { Vec::new() } else { self.items_of(event_id).await? };
        let items = if newer.len() == items.len() { &newer[..] } else { items };
        // What a server that has started anew has may be an old copy, so all of it has to be as new as the ledger.
        let settled = |item: &Item| if compared.is_some() { settled(item) } else { item.committed.version };
        let repairs = Repairs::find(items, staged_version, &copies, settled);
        if !repairs.is_empty() {
            let (stage, restored) = (repairs.stage, repairs.restore.len());
            tracing::info!(event.id = %event_id, repair.stage = stage, repair.items = restored, "repairing redis by the ledger");
            let copied = snapshot.event.as_ref().map_or(0, |event| event.arrivals);
            let arrivals_at_least =
                if compared.is_some() { 0 } else { self.arrivals_after_loss(items, copied).await? };
            self.repair(items, &repairs, arrivals_at_least, &snapshot.run_id).await?;
        }
        Ok(repairs.drifts)
    }

    async fn repair(
        &self,
        items: &[Item],
        repairs: &Repairs,
        arrivals_at_least: i64,
        run_id: &str,
    ) -> Result<(), Error> {
        for item in items.iter().filter(|item| repairs.restore.contains(&item.id())) {
            self.restore(item).await?;
        }
        if repairs.stage {
            self.sync.stage(items, arrivals_at_least, run_id).await?;
        }
        Ok(())
    }

    /// Copies the units of an item and of all its buyers, page by page. The version was read before the buyers, so
    /// they are at least as new as it says.
    async fn restore(&self, item: &Item) -> Result<(), Error> {
        let mut after = None;
        loop {
            let buyers: Vec<(UserId, i32)> = self
                .db
                .run("buyers_of_item", |mut conn| async move {
                    store::ledger::buyers_of(&mut conn, item.id(), after, BATCH_SIZE).await
                })
                .await?;
            after = buyers.last().map(|(user, _)| *user);
            let all_buyers = buyers.len() < BATCH_SIZE as usize;
            let ledger = ledger_units(item.committed);
            // A page covers no change; only all of them do, which the last one says.
            let first_version = ledger.version + 1;
            let ledger_copy = LedgerCopy { item_id: item.id(), ledger, first_version, buyers, all_buyers };
            self.sync.copy(item.event_id, ledger_copy).await?;
            if all_buyers {
                return Ok(());
            }
        }
    }

    /// Where arrivals go on when Redis may have lost how many there were: beyond all that an order may have, and beyond
    /// where they went on after the loss before. An event that was never in Redis begins with the first.
    async fn arrivals_after_loss(&self, items: &[Item], copied: i64) -> Result<i64, Error> {
        let Some(first) = items.first() else { return Ok(0) };
        let event = first.event_id;
        let last: i64 = self
            .db
            .run("last_arrival", |mut conn| async move { store::ledger::last_arrival(&mut conn, event).await })
            .await?;
        let beyond = |floor: i64| floor.max(last).max(copied) + ARRIVALS_SKIPPED;
        let floor = items.iter().filter_map(|item| item.arrivals_floor).max();
        // An event that was on sale before the floor was kept has been in Redis.
        let floor = floor.or((last > 0).then_some(0)).map_or(0, beyond);
        self.db
            .run("raise_arrivals_floor", |mut conn| async move {
                store::stock::raise_arrivals_floor(&mut conn, event, floor).await
            })
            .await?;
        Ok(floor)
    }
}
