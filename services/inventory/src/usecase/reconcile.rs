//! Compares Redis with the ledger, and repairs Redis: after a lost copy, after Redis was lost, and when an event is
//! staged.
//!
//! Every copy carries the version of its row, so this may run concurrently with the consumer and other replicas. An
//! item that Redis lost gets its buyers first and its total last: until then it is NOT_READY. A repair runs on its own
//! task: it goes on when its caller goes away, and a round does not wait for a long one.

use super::{
    Error, SyncRedis,
    active_events::ActiveEvents,
    copy_buyers::{CopyBuyers, Repaired},
    distrusts::Distrusts,
    recheck_queue::RecheckQueue,
    sync_redis::item_copy,
    unreadable::readable,
};
use crate::{
    domain::{Drift, EventCopy, Item, Repairs},
    store::{self, stock::StoredItems},
};
use futures_util::{StreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_lua::stock::{ShelfEvent, Snapshot, Stock};
use stampede_service::OnceAMinute;
use stampede_vocab::{EventId, ItemId, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Events that are compared at a time.
pub(super) const MAX_CONCURRENT_EVENTS: usize = 8;
/// Events that rounds repair at a time.
const MAX_CONCURRENT_REPAIRS: usize = 16;
/// Items of one event whose buyers are copied at a time.
const MAX_CONCURRENT_ITEMS: usize = 4;
/// Events that are read at a time.
pub(super) const EVENTS_PER_PAGE: usize = 32;
/// How long a round waits for a permit, and then for the repair, before it leaves it to its task.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(1);
/// Poll interval while another worker repairs.
const RECHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Places of arrival to skip when Redis has lost an event: orders that are not in the ledger yet may have some of them.
const ARRIVALS_SKIPPED: i64 = 1_000_000;
/// Fields that one call of a recount reads.
const RECOUNT_PAGE: u32 = 1_000;
/// Capacity of the recheck queue. If it overflows, all events are compared.
const MAX_RECHECKS: usize = 4_096;

static PAUSED_LINES: OnceAMinute<EventId> = OnceAMinute::new();

/// The version of each item's stock row, as a round read it.
type LedgerVersions = HashMap<ItemId, i64>;

/// The changes that must have reached Redis by now.
pub(super) enum Watermark {
    All,
    /// Those that the previous round read; later ones may still be in flight.
    Seen(LedgerVersions),
}

impl Watermark {
    /// No change: whatever Redis misses may be in flight.
    pub(super) fn none() -> Self {
        Self::Seen(LedgerVersions::new())
    }

    fn version_of(&self, item: &Item) -> i64 {
        match self {
            Self::All => item.committed.version,
            Self::Seen(versions) => versions.get(&item.id()).copied().unwrap_or(0),
        }
    }
}

/// The result of comparing an event, with the repairs.
struct Comparison {
    event_id: EventId,
    items: Vec<Item>,
    repairs: Repairs,
    /// The run id of the server that was read, and whether the event was compared on it before.
    run_id: String,
    is_compared: bool,
    /// Places of arrival that Redis has given out.
    arrivals: i64,
}

/// Compares Redis with the ledger, and repairs it. Clones share the state of the rounds.
#[derive(Clone)]
pub struct Reconcile {
    pub(super) db: Database,
    pub(super) redis: Stock,
    sync: SyncRedis,
    copy: CopyBuyers,
    active: Arc<ActiveEvents>,
    versions: Arc<Mutex<HashMap<EventId, LedgerVersions>>>,
    /// Events that were found not to be ready.
    pub(super) rechecks: Arc<RecheckQueue>,
    distrusts: Arc<Distrusts>,
    permits: Arc<Semaphore>,
}

impl Reconcile {
    /// Returns the reconciler of this Redis by the ledger of this schema, of which a round begins each `interval`.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis, interval: Duration) -> Self {
        Self {
            copy: CopyBuyers::new(db.clone(), redis.clone(), sync.clone()),
            active: Arc::new(ActiveEvents::new(db.clone())),
            versions: Arc::default(),
            rechecks: Arc::new(RecheckQueue::with_capacity(MAX_RECHECKS)),
            distrusts: Arc::new(Distrusts::with_rounds_each(interval)),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REPAIRS)),
            db,
            redis,
            sync,
        }
    }

    /// Compares one event, and waits until it is repaired, by this or another worker. Returns the differences that it
    /// found first. A repair that has started goes on when the caller goes away.
    pub async fn run(&self, event: EventId) -> Result<Vec<Drift>, Error> {
        let mut first = None;
        loop {
            let items = self.items_of(event).await?;
            let Some(comparison) = self.compare(items, &Watermark::All).await? else {
                return Err(Error::EventNotFound(event));
            };
            let is_correct = comparison.repairs.is_empty();
            let drifts: &mut Vec<Drift> = first.get_or_insert_with(|| comparison.repairs.drifts.clone());
            if is_correct || self.start_repair(comparison, None).await.map_err(broken_off)?? == Repaired::Complete {
                return Ok(std::mem::take(drifts));
            }
            sleep(RECHECK_INTERVAL).await;
        }
    }

    /// Compares the active events, and repairs what has been wrong since the previous round.
    pub async fn run_active(&self) -> Result<(), Error> {
        let events = self.active.next_round().await?;
        self.retain_versions(&events);
        for page in events.chunks(EVENTS_PER_PAGE) {
            let items = self.items_of_each(page).await?;
            let compared = stream::iter(items);
            compared.for_each_concurrent(MAX_CONCURRENT_EVENTS, |items| self.compare_active(items)).await;
        }
        Ok(())
    }

    /// Stages an event's current items and window in Redis, and deletes its pending restage. If buyers that Redis lost
    /// take long to copy, the copy goes on after the call, and the restage stays pending.
    pub async fn restage(&self, event: EventId) -> Result<(), Error> {
        let items = self.items_of(event).await?;
        let version = items.iter().map(|item| item.event_version).max().unwrap_or(i64::MAX);
        if self.compare_and_repair(items, &Watermark::none()).await {
            let strike_off = self.db.run("strike_off_restage", |mut conn| async move {
                store::restages::delete(&mut conn, event, version).await
            });
            strike_off.await?;
        }
        Ok(())
    }

    async fn compare_active(&self, items: Vec<Item>) {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return };
        self.active.visit(event_id);
        let seen = self.record_versions(event_id, &items);
        if seen.is_empty() && items.iter().all(Item::is_new) {
            // Its writer is staging it. A second one would take it for lost, and skip places of arrival.
            return;
        }
        let watermark = Watermark::Seen(seen);
        self.compare_and_repair(items, &watermark).await;
    }

    /// Queues an event that is not ready for comparison.
    pub fn request_recheck(&self, event: EventId) {
        self.rechecks.add(event);
    }

    /// Distrusts an event if Redis was rolled back to an earlier copy of it while the server ran: it is NOT_READY until
    /// the next round has rebuilt it. In the background.
    pub(super) fn start_distrust(&self, event: EventId, last_place: i64) {
        let this = self.clone();
        tokio::spawn(async move {
            match this.distrust(event, last_place).await {
                Ok(true) => this.request_recheck(event),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    event.id = %event, error.cause = %error,
                    "an event was not distrusted of which redis may have been rolled back, the next round will look"
                ),
            }
        });
    }

    /// Distrusts an event if Redis has given fewer places of arrival than the ledger has, of which this is the last.
    /// Returns whether what was read of it is out of date: one that was distrusted again and again is left alone.
    async fn distrust(&self, event: EventId, last_place: i64) -> Result<bool, Error> {
        if self.distrusts.is_paused(event, Instant::now()) {
            if PAUSED_LINES.is_due(event) {
                tracing::error!(
                    event.id = %event,
                    "redis is behind the ledger soon after each rebuild of an event, which is left alone for a while: \
                     two masters may take writes"
                );
            }
            return Ok(false);
        }
        // If not, somebody else did, or an earlier try whose answer was lost.
        if self.redis.distrust(event, last_place).await? {
            self.distrusts.note(event, Instant::now());
            tracing::warn!(event.id = %event, "redis was rolled back to an earlier copy of an event, which is rebuilt");
        }
        Ok(true)
    }

    /// Stores the versions of the items, and returns those of the previous round.
    fn record_versions(&self, event: EventId, items: &[Item]) -> LedgerVersions {
        let versions = items.iter().map(|item| (item.id(), item.committed.version)).collect();
        let mut seen = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(event, versions).unwrap_or_default()
    }

    fn retain_versions(&self, events: &[EventId]) {
        let events: HashSet<&EventId> = events.iter().collect();
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).retain(|event, _| events.contains(event));
    }

    /// Compares an event and repairs it. Returns whether it is correct now; logs failures.
    pub(super) async fn compare_and_repair(&self, items: Vec<Item>, watermark: &Watermark) -> bool {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return true };
        match self.compare(items, watermark).await {
            Ok(None) => true,
            Ok(Some(comparison)) => comparison.repairs.is_empty() || self.repair_in_time(comparison).await,
            Err(error) => {
                tracing::warn!(event.id = %event_id, error.cause = %error, "redis could not be compared with the ledger");
                false
            }
        }
    }

    /// Repairs an event, without waiting for a long repair. Returns whether it is done.
    async fn repair_in_time(&self, comparison: Comparison) -> bool {
        let Ok(Ok(permit)) = timeout(REPAIR_TIMEOUT, self.permits.clone().acquire_owned()).await else { return false };
        let repair = self.start_repair(comparison, Some(permit));
        matches!(timeout(REPAIR_TIMEOUT, repair).await, Ok(Ok(Ok(Repaired::Complete))))
    }

    fn start_repair(
        &self,
        comparison: Comparison,
        permit: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<Result<Repaired, Error>> {
        let this = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let event_id = comparison.event_id;
            let outcome = this.repair(comparison).await;
            if let Err(error) = &outcome {
                tracing::warn!(event.id = %event_id, error.cause = %error, "redis could not be repaired, trying again");
            }
            outcome
        })
    }

    pub(super) async fn items_of(&self, event: EventId) -> Result<Vec<Item>, DbError> {
        let read = self
            .db
            .run("items_of_event", |mut conn| async move { store::stock::each_of_events(&mut conn, &[event]).await });
        let mut read: Vec<(EventId, StoredItems)> = read.await?;
        read.pop().map_or(Ok(Vec::new()), |(_, items)| items)
    }

    /// Returns the items of these events, grouped by event. Leaves out and logs an event with an unreadable row.
    pub(super) async fn items_of_each(&self, events: &[EventId]) -> Result<Vec<Vec<Item>>, DbError> {
        let read = self
            .db
            .run("items_of_events", |mut conn| async move { store::stock::each_of_events(&mut conn, events).await });
        let read: Vec<(EventId, StoredItems)> = read.await?;
        Ok(read.into_iter().filter_map(readable).collect())
    }

    /// Compares the event of these items; `None` without items.
    async fn compare(&self, items: Vec<Item>, watermark: &Watermark) -> Result<Option<Comparison>, Error> {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return Ok(None) };
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.snapshot(event_id, &ids, &items).await?;
        let compared = snapshot.event.as_ref().filter(|event| event.is_compared);
        let is_compared = compared.is_some();
        let event_copy = EventCopy {
            event_version: compared.map(|event| event.event_version),
            miscounted: self.count_held(event_id, &ids, &snapshot).await?,
            items: snapshot.items.iter().map(|item| item.as_ref().map(item_copy)).collect(),
        };
        // If the server has restarted, or was rolled back, read the ledger again, after Redis: changes in between were
        // copied to what was there before.
        let newer = if is_compared { Vec::new() } else { self.items_of(event_id).await? };
        let items = if newer.len() == items.len() { newer } else { items };
        // It may have an earlier copy, so it has to have all changes of the ledger.
        let all = Watermark::All;
        let watermark = if is_compared { watermark } else { &all };
        let mut repairs = Repairs::find(&items, &event_copy, |item| watermark.version_of(item));
        repairs.stage |= compared.is_some_and(|event| is_kept_otherwise(&items, event));
        let is_dropped = is_dropped(&items, Timestamp::now());
        let repairs = if is_dropped && snapshot.event.is_none() {
            // Forgotten, as it should be. To stage it would write to the ledger's database, for nothing.
            Repairs::default()
        } else if is_dropped {
            // What is staged of such an event is gone at once, so it is not worth copying a million buyers before.
            repairs.without_buyers_of_missing()
        } else {
            repairs
        };
        let arrivals = snapshot.event.as_ref().map_or(0, |event| event.arrivals);
        Ok(Some(Comparison { event_id, items, repairs, run_id: snapshot.run_id, is_compared, arrivals }))
    }

    /// Reads the event as Redis has it. If that shows that Redis was rolled back, it is distrusted, and read again.
    async fn snapshot(&self, event: EventId, ids: &[ItemId], items: &[Item]) -> Result<Snapshot, Error> {
        let snapshot = self.redis.snapshot(event, ids).await?;
        let last_place = last_place(items);
        let is_rolled_back = snapshot.event.as_ref().is_some_and(|event| is_rolled_back(event, last_place));
        if is_rolled_back && self.distrust(event, last_place).await? {
            return Ok(self.redis.snapshot(event, ids).await?);
        }
        Ok(snapshot)
    }

    /// Compares the held units of the items with the holds, and corrects them. Returns the items whose buyers have to
    /// be recounted.
    async fn count_held(&self, event: EventId, ids: &[ItemId], snapshot: &Snapshot) -> Result<Vec<ItemId>, Error> {
        let staged = || snapshot.items.iter().flatten();
        let is_any_held =
            snapshot.hold_count > 0 || staged().any(|item| (item.held_units, item.gift_held_units) != (0, 0));
        if !is_any_held && !staged().any(|item| item.has_uncounted_buyers) {
            return Ok(Vec::new());
        }
        let corrected = self.redis.count_held(event, ids).await?;
        let mut miscounted = Vec::new();
        for ((id, staged), corrected) in ids.iter().zip(&snapshot.items).zip(corrected) {
            if corrected > 0 {
                tracing::warn!(
                    event.id = %event,
                    item.id = %id,
                    corrected_number.count = corrected,
                    "units on hold were not those of the holds"
                );
            }
            if corrected > 0 || staged.is_some_and(|item| item.has_uncounted_buyers) {
                miscounted.push(*id);
            }
        }
        Ok(miscounted)
    }

    async fn repair(&self, comparison: Comparison) -> Result<Repaired, Error> {
        let repairs = &comparison.repairs;
        let (stage, restored, recounted) = (repairs.stage, repairs.restore.len(), repairs.recount.len());
        tracing::info!(
            event.id = %comparison.event_id,
            repair.stage = stage,
            restored_item.count = restored,
            recounted_item.count = recounted,
            "repairing redis by the ledger"
        );
        for item in &repairs.recount {
            self.recount(comparison.event_id, *item).await?;
        }
        if self.restore(&comparison).await? == Repaired::Pending {
            return Ok(Repaired::Pending);
        }
        if stage {
            let arrivals =
                if comparison.is_compared { None } else { Some(self.arrivals_after_loss(&comparison).await?) };
            if !self.sync.stage(&comparison.items, arrivals, &comparison.run_id).await? {
                return Ok(Repaired::Pending);
            }
        }
        Ok(Repaired::Complete)
    }

    /// Copies the buyers of all items that need it, some items concurrently.
    async fn restore(&self, comparison: &Comparison) -> Result<Repaired, Error> {
        let items: HashMap<ItemId, Item> = comparison.items.iter().map(|item| (item.id(), *item)).collect();
        let copies = comparison.repairs.restore.clone().into_iter().filter_map(|restore| {
            let (item, copy) = (*items.get(&restore.item_id)?, self.copy.clone());
            Some(async move { copy.run(&item, restore).await })
        });
        let copies: Vec<_> = copies.collect();
        let outcomes: Vec<Result<Repaired, Error>> =
            stream::iter(copies).buffer_unordered(MAX_CONCURRENT_ITEMS).collect().await;
        let mut repaired = Repaired::Complete;
        for outcome in outcomes {
            if outcome? == Repaired::Pending {
                repaired = Repaired::Pending;
            }
        }
        Ok(repaired)
    }

    /// Sets the held units of an item and of its buyers to those of the holds.
    async fn recount(&self, event: EventId, item: ItemId) -> Result<(), Error> {
        let (mut cursor, mut total) = (Some(0), 0);
        while let Some(from) = cursor {
            let (next, corrected) = self.redis.recount(event, item, from, RECOUNT_PAGE).await?;
            (cursor, total) = (next, total + corrected);
        }
        if total > 0 {
            tracing::warn!(event.id = %event, item.id = %item, corrected_number.count = total, "buyers had units on hold without a hold");
        }
        Ok(())
    }

    /// Returns the new floor of the places of arrival after a loss of Redis, above all that an order may have and above
    /// the floor after the previous loss. An event that was never in Redis starts with the first place.
    async fn arrivals_after_loss(&self, comparison: &Comparison) -> Result<i64, Error> {
        let event = comparison.event_id;
        let last: i64 = self
            .db
            .run("last_arrival", |mut conn| async move { store::ledger::last_arrival(&mut conn, event).await })
            .await?;
        let beyond = |floor: i64| floor.max(last).max(comparison.arrivals) + ARRIVALS_SKIPPED;
        let floor = comparison.items.iter().filter_map(|item| item.arrivals_floor).max();
        // An event that was on sale before the floor was stored has been in Redis.
        let floor = floor.or((last > 0).then_some(0)).map_or(0, beyond);
        self.db
            .run("raise_arrivals_floor", |mut conn| async move {
                store::stock::raise_arrivals_floor(&mut conn, event, floor).await
            })
            .await?;
        Ok(floor)
    }
}

/// Returns whether the event closed so long ago that Redis keeps nothing of it.
fn is_dropped(items: &[Item], now: Timestamp) -> bool {
    items.iter().map(Item::kept_until).max().is_some_and(|kept_until| kept_until <= now)
}

/// Returns the last place of arrival that the ledger has; 0 before the first.
fn last_place(items: &[Item]) -> i64 {
    items.iter().filter_map(|item| item.last_grant).map(|last| last.arrival).max().unwrap_or(0)
}

/// Returns whether Redis was rolled back to an earlier copy while the server ran: the ledger, which was read before,
/// has a later place of arrival than Redis has given out.
fn is_rolled_back(event: &ShelfEvent, last_place: i64) -> bool {
    event.is_compared && last_place > event.arrivals
}

/// Returns whether Redis has this version of the event, and will forget it at another time than it should, or never: an
/// earlier release has staged it.
fn is_kept_otherwise(items: &[Item], event: &ShelfEvent) -> bool {
    let newest = items.iter().max_by_key(|item| item.event_version);
    newest.is_some_and(|item| item.event_version == event.event_version && event.expires_at != Some(item.kept_until()))
}

fn broken_off(_: tokio::task::JoinError) -> DbError {
    DbError::BrokenOff("repair_redis")
}
