//! Copies the ledger to Redis: what a transaction has changed, and a whole event when it is staged.

use super::{Error, KEPT_AFTER_CLOSING};
use crate::domain::{Committed, CopiedItem, Item, ItemChange};
use futures_util::future::join_all;
use stampede_lua::stock::{LedgerCopy, LedgerUnits, ShelfItem as RedisItem, StagedItem, Staging, Stock};
use stampede_vocab::{EventId, ItemId, OrderId};

/// What is to be copied to Redis for one event, once the transaction that changed it has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventSync {
    pub event_id: EventId,
    pub ledger_copies: Vec<LedgerCopy>,
    /// Orders that the ledger has answered, with the items that they may hold.
    pub answered: Vec<(OrderId, Vec<ItemId>)>,
}

/// Copies the ledger to Redis. Cheap to clone.
#[derive(Clone)]
pub struct SyncRedis {
    redis: Stock,
}

impl SyncRedis {
    /// Copies to this Redis.
    pub fn new(redis: Stock) -> Self {
        Self { redis }
    }

    /// Copies changes. One that fails is logged: the sweep drops its holds, the reconciler copies its units.
    pub(super) async fn run(&self, syncs: &[EventSync]) {
        let calls = syncs.iter().map(|sync| async move {
            (sync.event_id, self.redis.sync(sync.event_id, &sync.ledger_copies, &sync.answered).await)
        });
        for (event, outcome) in join_all(calls).await {
            if let Err(error) = outcome {
                tracing::warn!(event.id = %event, error.cause = %error, "a change did not reach redis, the reconciler will copy it");
            }
        }
    }

    /// Copies a page of an item's buyers.
    pub(super) async fn copy(&self, event: EventId, ledger_copy: LedgerCopy) -> Result<(), Error> {
        self.redis.sync(event, &[ledger_copy], &[]).await?;
        Ok(())
    }

    /// Stages an event as the database has it.
    pub(super) async fn stage(&self, items: &[Item], arrivals_at_least: i64) -> Result<(), Error> {
        let Some(newest) = items.iter().max_by_key(|item| item.event_version) else { return Ok(()) };
        let staging = Staging {
            event_id: newest.event_id,
            event_version: newest.event_version,
            opens_at: newest.window.opens_at,
            closes_at: newest.window.closes_at,
            items_expire_at: newest.window.closes_at.plus(KEPT_AFTER_CLOSING),
            arrivals_at_least,
            items: items.iter().map(staged_item).collect(),
        };
        if !self.redis.stage(&staging).await? {
            tracing::debug!(event.id = %newest.event_id, "a newer version of the event is staged already");
        }
        Ok(())
    }
}

/// What Redis is told of a change.
pub(super) fn ledger_copy(change: &ItemChange) -> LedgerCopy {
    LedgerCopy {
        item_id: change.item_id,
        ledger: ledger_units(change.after),
        buyers: change.buyers.clone(),
        all_buyers: false,
    }
}

/// The committed units as the door takes them.
pub(super) fn ledger_units(committed: Committed) -> LedgerUnits {
    LedgerUnits {
        committed_units: committed.units,
        gift_committed_units: committed.gift_units,
        version: committed.version,
    }
}

/// What Redis has of an item, as the domain compares it.
pub(super) fn copied(item: &RedisItem) -> CopiedItem {
    CopiedItem {
        committed_units: item.committed_units,
        gift_committed_units: item.gift_committed_units,
        version: item.ledger_version,
        stale: item.stale_at.is_some(),
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
