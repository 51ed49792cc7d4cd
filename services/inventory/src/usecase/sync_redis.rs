//! Copies the ledger to Redis: what a transaction has changed, and a whole event when it is staged.
//!
//! What transactions have changed goes through one queue an event, in their order: an item's copy that overtakes
//! another leaves its buyers in doubt until they are compared. What queues while a copy is under way goes out as one.

use super::{Error, KEPT_AFTER_CLOSING, event_queues::EventQueues};
use crate::domain::{Committed, CopiedItem, Item, ItemChange};
use futures_util::future::join_all;
use stampede_batch::{BatchConfig, Batcher};
use stampede_lua::stock::{LedgerCopy, LedgerUnits, ShelfItem as RedisItem, StagedItem, Staging, Stock};
use stampede_vocab::{EventId, ItemId, OrderId, UserId};
use std::collections::BTreeMap;

/// One at a time keeps the order. What does not fit is left to the reconciler. A change is copied though nobody waits
/// for it any more: it has been committed.
const SYNC: BatchConfig =
    BatchConfig { name: "sync_redis", max_batch: 8, max_in_flight: 1, max_queued: 1_024, must_run: true };

/// The changes to copy to Redis for one event, once the transaction that changed it has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventSync {
    pub event_id: EventId,
    pub ledger_copies: Vec<LedgerCopy>,
    /// Orders that the ledger has answered, with the items that they may hold.
    pub answered: Vec<(OrderId, Vec<ItemId>)>,
}

/// Copies the ledger to Redis. Clones share the queues.
#[derive(Clone)]
pub struct SyncRedis {
    redis: Stock,
    queues: EventQueues<EventSync, ()>,
}

impl SyncRedis {
    /// Copies to this Redis. Needs a tokio runtime.
    pub fn new(redis: Stock) -> Self {
        let copied = redis.clone();
        let queue = move || {
            let redis = copied.clone();
            Batcher::new(SYNC, move |syncs| copy_all(redis.clone(), syncs))
        };
        Self { redis, queues: EventQueues::new(queue) }
    }

    /// Copies changes, after those that were queued before. One that fails is logged: the sweep drops its holds, the
    /// reconciler copies its units.
    pub(super) async fn run(&self, syncs: Vec<EventSync>) {
        let queued = syncs.into_iter().map(|sync| async move {
            let event_id = sync.event_id;
            (event_id, self.queues.of(event_id).call(sync).await)
        });
        for (event, outcome) in join_all(queued).await {
            if let Err(error) = outcome {
                tracing::warn!(event.id = %event, error.cause = %error, "a change was not copied to redis, the reconciler will copy it");
            }
        }
    }

    /// Queues changes and does not wait for them.
    pub(super) fn start(&self, syncs: Vec<EventSync>) {
        if !syncs.is_empty() {
            let this = self.clone();
            tokio::spawn(async move { this.run(syncs).await });
        }
    }

    /// Copies a page of an item's buyers.
    pub(super) async fn copy(&self, event: EventId, ledger_copy: LedgerCopy) -> Result<(), Error> {
        self.redis.sync(event, &[ledger_copy], &[]).await?;
        Ok(())
    }

    /// Stages an event as the database has it, after what Redis has of it was compared on this run of the server.
    pub(super) async fn stage(&self, items: &[Item], arrivals_at_least: i64, run_id: &str) -> Result<(), Error> {
        let Some(newest) = items.iter().max_by_key(|item| item.event_version) else { return Ok(()) };
        let staging = Staging {
            event_id: newest.event_id,
            event_version: newest.event_version,
            open_time: newest.window.open_time,
            close_time: newest.window.close_time,
            items_expire_at: newest.window.close_time.plus(KEPT_AFTER_CLOSING),
            arrivals_at_least,
            compared_on: run_id.to_owned(),
            items: items.iter().map(staged_item).collect(),
        };
        if !self.redis.stage(&staging).await? {
            tracing::debug!(event.id = %newest.event_id, "a newer version of the event is staged already, or redis has started anew");
        }
        Ok(())
    }
}

/// Copies what has queued, in one call: all of it is of one event.
async fn copy_all(redis: Stock, syncs: Vec<EventSync>) -> Vec<()> {
    let count = syncs.len();
    let mut by_event: BTreeMap<EventId, MergedSync> = BTreeMap::new();
    for sync in syncs {
        by_event.entry(sync.event_id).or_default().add(sync);
    }
    let redis = &redis;
    let calls = by_event.into_iter().map(|(event, merged)| async move {
        let copies: Vec<LedgerCopy> = merged.copies.into_values().flatten().collect();
        (event, redis.sync(event, &copies, &merged.answered).await)
    });
    for (event, outcome) in join_all(calls).await {
        if let Err(error) = outcome {
            tracing::warn!(event.id = %event, error.cause = %error, "a change did not reach redis, the reconciler will copy it");
        }
    }
    vec![(); count]
}

/// Changes of one event that go out as one.
#[derive(Default)]
struct MergedSync {
    /// Of each item, in the order in which they are copied.
    copies: BTreeMap<ItemId, Vec<LedgerCopy>>,
    answered: Vec<(OrderId, Vec<ItemId>)>,
}

impl MergedSync {
    fn add(&mut self, sync: EventSync) {
        self.answered.extend(sync.answered);
        for copy in sync.ledger_copies {
            let copies = self.copies.entry(copy.item_id).or_default();
            match copies.pop() {
                Some(last) if follows(&last, &copy) => copies.push(merged(last, copy)),
                last => copies.extend(last.into_iter().chain([copy])),
            }
        }
    }
}

/// Whether a copy has all changes since the one before: only then its buyers may be copied under its version.
fn follows(earlier: &LedgerCopy, later: &LedgerCopy) -> bool {
    let covers_changes = |copy: &LedgerCopy| copy.first_version <= copy.ledger.version;
    covers_changes(earlier) && covers_changes(later) && later.first_version == earlier.ledger.version + 1
}

/// Two copies of which the later follows the earlier, as one; the later units of each buyer are in it.
fn merged(earlier: LedgerCopy, later: LedgerCopy) -> LedgerCopy {
    let mut buyers: BTreeMap<UserId, i32> = earlier.buyers.into_iter().collect();
    buyers.extend(later.buyers);
    let first_version = earlier.first_version;
    LedgerCopy { first_version, buyers: buyers.into_iter().collect(), all_buyers: false, ..later }
}

/// A change as it is copied to Redis.
pub(super) fn ledger_copy(change: &ItemChange) -> LedgerCopy {
    LedgerCopy {
        item_id: change.item_id,
        ledger: ledger_units(change.after),
        first_version: change.after.version,
        buyers: change.buyers.clone(),
        all_buyers: false,
    }
}

/// The committed units as arguments of `stampede_lua`.
pub(super) fn ledger_units(committed: Committed) -> LedgerUnits {
    LedgerUnits {
        committed_units: committed.units,
        gift_committed_units: committed.gift_units,
        version: committed.version,
    }
}

/// The state of an item in Redis, as the domain compares it.
pub(super) fn copied(item: &RedisItem) -> CopiedItem {
    CopiedItem {
        committed_units: item.committed_units,
        gift_committed_units: item.gift_committed_units,
        version: item.ledger_version,
        stale_from: item.stale_from,
    }
}

fn staged_item(item: &Item) -> StagedItem {
    StagedItem {
        item_id: item.id(),
        total_units: item.shelf.total_units,
        limit_per_buyer: item.shelf.limit_per_buyer,
        unit_price: item.shelf.unit_price,
        gift_total_units: item.shelf.gift_total_units,
        ledger: ledger_units(item.committed),
    }
}
