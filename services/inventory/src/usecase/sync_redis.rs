//! Copies the ledger to Redis: the changes of transactions, and whole events when they are staged.
//!
//! The changes of transactions go through one queue an event, in order: a copy of an item that overtakes another leaves
//! its buyers stale until they are compared. Copies that queue while one is in flight are merged.

use super::{Error, MANY_EVENT_QUEUES};
use crate::domain::{Committed, Item, ItemChange, ItemCopy};
use futures_util::future::join_all;
use stampede_batch::{BatchConfig, Batcher, KeyedBatchers};
use stampede_lua::stock::{LedgerCopy, LedgerUnits, ShelfItem as RedisItem, StagedItem, Staging, Stock};
use stampede_vocab::{EventId, ItemId, OrderId, UserId};
use std::collections::BTreeMap;

/// One in flight keeps the order. The reconciler copies what does not fit into the queue. A change is copied even if
/// its caller is gone: it has been committed.
const SYNC: BatchConfig =
    BatchConfig { name: "sync_redis", max_batch: 8, max_in_flight: 1, max_queued: 1_024, must_run: true };

/// The changes of a committed transaction to copy to Redis, for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventSync {
    pub event_id: EventId,
    pub ledger_copies: Vec<LedgerCopy>,
    /// Orders that the ledger has decided, with the items that they may hold.
    pub answered: Vec<(OrderId, Vec<ItemId>)>,
}

/// Copies the ledger to Redis. Clones share the queues.
#[derive(Clone)]
pub struct SyncRedis {
    redis: Stock,
    queues: KeyedBatchers<EventId, EventSync, ()>,
}

impl SyncRedis {
    /// Returns the use case on this Redis. Needs a tokio runtime.
    pub fn new(redis: Stock) -> Self {
        let shared = redis.clone();
        let queue = move || {
            let redis = shared.clone();
            Batcher::new(SYNC, move |syncs| copy_all(redis.clone(), syncs))
        };
        Self { redis, queues: KeyedBatchers::new(MANY_EVENT_QUEUES, queue) }
    }

    /// Queues changes, and waits until they are copied. Logs failures: the sweep then drops the holds, and the
    /// reconciler copies the units.
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

    /// Copies changes in the background.
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

    /// Stages an event with the items of the database, once it was compared on this run of the server. Arrivals go on
    /// from at least `arrivals_after_loss`; without it, the event was found to be ready and has to be so still. Returns
    /// false if it has to be compared again.
    pub(super) async fn stage(
        &self,
        items: &[Item],
        arrivals_after_loss: Option<i64>,
        run_id: &str,
    ) -> Result<bool, Error> {
        let Some(newest) = items.iter().max_by_key(|item| item.event_version) else { return Ok(true) };
        let staging = Staging {
            event_id: newest.event_id,
            event_version: newest.event_version,
            open_time: newest.window.open_time,
            close_time: newest.window.close_time,
            expires_at: newest.kept_until(),
            arrivals_at_least: arrivals_after_loss.unwrap_or(0),
            compared_on: run_id.to_owned(),
            was_compared: arrivals_after_loss.is_none(),
            items: items.iter().map(staged_item).collect(),
        };
        let is_staged = self.redis.stage(&staging).await?;
        if !is_staged {
            tracing::debug!(
                event.id = %newest.event_id,
                "a newer version of the event is staged already, or redis has started anew, or has lost the event"
            );
        }
        Ok(is_staged)
    }
}

/// Copies the changes that have queued, in one call for each event. All are of one, unless it shares its queue.
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

/// The merged changes of one event.
#[derive(Default)]
struct MergedSync {
    /// By item, in the order in which they are copied.
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

/// Returns whether a copy has all changes since the earlier one: only then the buyers of both may be copied under its
/// version.
fn follows(earlier: &LedgerCopy, later: &LedgerCopy) -> bool {
    let covers_changes = |copy: &LedgerCopy| copy.first_version <= copy.ledger.version;
    covers_changes(earlier) && covers_changes(later) && later.first_version == earlier.ledger.version + 1
}

/// Merges two copies of which the later follows the earlier. The later units of each buyer win.
fn merged(earlier: LedgerCopy, later: LedgerCopy) -> LedgerCopy {
    let mut buyers: BTreeMap<UserId, i32> = earlier.buyers.into_iter().collect();
    buyers.extend(later.buyers);
    let first_version = earlier.first_version;
    LedgerCopy { first_version, buyers: buyers.into_iter().collect(), all_buyers: false, ..later }
}

/// Returns the copy of a change.
pub(super) fn ledger_copy(change: &ItemChange) -> LedgerCopy {
    LedgerCopy {
        item_id: change.item_id,
        ledger: ledger_units(change.after),
        first_version: change.after.version,
        buyers: change.buyers.clone(),
        all_buyers: false,
    }
}

/// Converts the committed units for `stampede_lua`.
pub(super) fn ledger_units(committed: Committed) -> LedgerUnits {
    LedgerUnits {
        committed_units: committed.units,
        gift_committed_units: committed.gift_units,
        version: committed.version,
    }
}

/// Converts the state of an item in Redis for the domain.
pub(super) fn item_copy(item: &RedisItem) -> ItemCopy {
    ItemCopy {
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
