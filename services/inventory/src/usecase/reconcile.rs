//! Setting Redis right by the ledger: after a settlement was lost, after Redis was lost, and when an event is staged.
//!
//! Everything that is copied carries the version of its row, so this may run beside the consumer and beside other
//! replicas. An item that Redis lost gets its buyers first and its total last: until then it is NOT_READY.

use crate::{
    domain::{Drift, Item, Repairs},
    store,
    usecase::{
        Inventory, InventoryError,
        mirror::{copied, ledger_units},
    },
};
use futures_util::{StreamExt, stream};
use stampede_lua::stock::Mirror;
use stampede_vocab::{EventId, ItemId};
use std::{collections::HashMap, time::Duration};

/// Buyers that are copied in one call.
const BUYERS_PER_CALL: u32 = 1_000;
/// Events that are compared at a time.
const CONCURRENT_EVENTS: usize = 8;
/// How long after its closing an event is still compared: every order of it has ended by then.
const COMPARED_AFTER_CLOSING: Duration = Duration::from_secs(3_600);
/// Arrivals that are skipped when Redis lost an event: orders that are not in the ledger yet may have some of them.
const ARRIVALS_SKIPPED: i64 = 1_000_000;

/// The version of the ledger's row of each item, as a pass saw it.
pub type LedgerVersions = HashMap<ItemId, i64>;

impl Inventory {
    /// Compares Redis with the ledger for one event, sets Redis right, and tells what differed.
    pub async fn reconcile(&self, event: EventId) -> Result<Vec<Drift>, InventoryError> {
        let items = store::stock::of_events(&mut *self.db.acquire().await?, &[event]).await?;
        if items.is_empty() {
            return Err(InventoryError::EventNotFound(event));
        }
        self.compare(&items, |item| item.committed.version).await
    }

    /// Compares every event that may still change, and sets right what has been wrong since the pass that `seen` is of;
    /// what is newer may still be on its way. Returns what this pass has seen.
    pub async fn reconcile_all(&self, seen: &LedgerVersions) -> Result<LedgerVersions, InventoryError> {
        let after = self.clock.now().minus(COMPARED_AFTER_CLOSING);
        let items = store::stock::closing_after(&mut *self.db.acquire().await?, after).await?;
        let events = items.chunk_by(|one, next| one.event_id == next.event_id);
        stream::iter(events).for_each_concurrent(CONCURRENT_EVENTS, |event| self.reconcile_seen(event, seen)).await;
        Ok(items.iter().map(|item| (item.id(), item.committed.version)).collect())
    }

    async fn reconcile_seen(&self, items: &[Item], seen: &LedgerVersions) {
        let event_id = items[0].event_id;
        let settled = |item: &Item| seen.get(&item.id()).copied().unwrap_or(0);
        if let Err(error) = self.compare(items, settled).await {
            tracing::warn!(%error, %event_id, "redis could not be compared with the ledger");
        }
    }

    async fn compare(&self, items: &[Item], settled: impl Fn(&Item) -> i64) -> Result<Vec<Drift>, InventoryError> {
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let event_id = first.event_id;
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let peek = self.redis.peek(event_id, &ids).await?;
        let copies: Vec<_> = peek.items.iter().map(|item| item.as_ref().map(copied)).collect();
        let staged_version = peek.event.as_ref().map(|event| event.event_version);
        let repairs = Repairs::find(items, staged_version, &copies, settled);
        if !repairs.is_empty() {
            let (stage, restored_items) = (repairs.stage, repairs.restore.len());
            tracing::info!(%event_id, stage, restored_items, "setting redis right by the ledger");
            self.repair(items, &repairs, staged_version.is_none()).await?;
        }
        Ok(repairs.drifts)
    }

    async fn repair(&self, items: &[Item], repairs: &Repairs, lost_event: bool) -> Result<(), InventoryError> {
        for item in items.iter().filter(|item| repairs.restore.contains(&item.id())) {
            self.restore(item).await?;
        }
        if repairs.stage {
            let arrivals_at_least = if lost_event { self.arrivals_after_loss(items).await? } else { 0 };
            self.stage(items, arrivals_at_least).await?;
        }
        Ok(())
    }

    /// Copies the units of an item and of all its buyers, page by page. The version was read before the buyers, so
    /// they are at least as new as it says.
    async fn restore(&self, item: &Item) -> Result<(), InventoryError> {
        let mut after = None;
        loop {
            let conn = &mut *self.db.acquire().await?;
            let buyers = store::ledger::buyers_of(conn, item.id(), after, BUYERS_PER_CALL).await?;
            after = buyers.last().map(|(user, _)| *user);
            let all_buyers = buyers.len() < BUYERS_PER_CALL as usize;
            let ledger = ledger_units(item.committed);
            let mirror = Mirror { item_id: item.id(), ledger, buyers, all_buyers };
            self.redis.settle(item.event_id, &[mirror], &[]).await?;
            if all_buyers {
                return Ok(());
            }
        }
    }

    /// Where arrivals go on when Redis has lost how many there were: beyond all that an order may have.
    async fn arrivals_after_loss(&self, items: &[Item]) -> Result<i64, InventoryError> {
        let Some(sold) = items.iter().find(|item| item.committed.version > 0) else { return Ok(0) };
        let last = store::ledger::last_arrival(&mut *self.db.acquire().await?, sold.event_id).await?;
        Ok(last + ARRIVALS_SKIPPED)
    }
}
