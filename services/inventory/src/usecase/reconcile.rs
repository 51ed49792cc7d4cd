//! Compares Redis with the ledger, and repairs it: after a change was not copied, after Redis was lost, and when an
//! event is staged.
//!
//! Everything that is copied carries the version of its row, so this may run beside the consumer and beside other
//! replicas. An item that Redis lost gets its buyers first and its total last: until then it is NOT_READY. A repair
//! runs on a task of its own: whoever asked for it may go away, and a round leaves it behind once it takes long.

use super::{
    Error, SyncRedis,
    asked_events::AskedEvents,
    copy_buyers::{CopyBuyers, Repaired},
    near_events::NearEvents,
    sync_redis::copied,
};
use crate::{
    domain::{Copied, Drift, Item, Repairs},
    store,
};
use futures_util::{StreamExt, stream};
use stampede_db::{Database, DbError};
use stampede_lua::stock::{Snapshot, Stock};
use stampede_vocab::{EventId, ItemId};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
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
/// How long a round waits for one repair before it leaves it behind, and before that for its turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// Wait for a repair that another worker does.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Arrivals that are skipped when Redis lost an event: orders that are not in the ledger yet may have some of them.
const ARRIVALS_SKIPPED: i64 = 1_000_000;
/// Fields that one call looks at when what is on hold is counted.
const RECOUNT_PAGE: u32 = 1_000;
/// Most events that are remembered to be looked at. If there are more, all are compared.
const MAX_ASKED: usize = 4_096;

/// The version of the ledger's row of each item, as a round saw it.
type LedgerVersions = HashMap<ItemId, i64>;

/// Which changes must have come to Redis by now.
pub(super) enum Settled {
    All,
    /// What the round before has seen; what is newer may still be on its way.
    Seen(LedgerVersions),
}

impl Settled {
    /// None: whatever Redis misses may be on its way.
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

/// One event as it was compared, and what is to be done.
struct Finding {
    event_id: EventId,
    items: Vec<Item>,
    repairs: Repairs,
    /// The run of the server that was asked, and whether the event was compared on it before.
    run_id: String,
    is_compared: bool,
    /// Places of arrival that Redis has given.
    arrivals: i64,
}

/// Compares Redis with the ledger, and repairs it. Clones share what rounds have seen.
#[derive(Clone)]
pub struct Reconcile {
    pub(super) db: Database,
    pub(super) redis: Stock,
    sync: SyncRedis,
    copy: CopyBuyers,
    near: Arc<NearEvents>,
    seen: Arc<Mutex<HashMap<EventId, LedgerVersions>>>,
    /// Events that somebody found not to be ready.
    pub(super) asked: Arc<AskedEvents>,
    permits: Arc<Semaphore>,
}

impl Reconcile {
    /// Repairs this Redis by this schema.
    pub fn new(db: Database, redis: Stock, sync: SyncRedis) -> Self {
        Self {
            copy: CopyBuyers::new(db.clone(), redis.clone(), sync.clone()),
            near: Arc::new(NearEvents::new(db.clone())),
            seen: Arc::default(),
            asked: Arc::new(AskedEvents::remembering(MAX_ASKED)),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REPAIRS)),
            db,
            redis,
            sync,
        }
    }

    /// Compares Redis with the ledger for one event, and waits until it is repaired, by whomever. Returns what
    /// differed. A repair that was begun goes on when the caller goes away.
    pub async fn run(&self, event: EventId) -> Result<Vec<Drift>, Error> {
        let mut first = None;
        loop {
            let items = self.items_of(event).await?;
            let Some(finding) = self.compare(items, &Settled::All).await? else {
                return Err(Error::EventNotFound(event));
            };
            let is_right = finding.repairs.is_empty();
            let drifts: &mut Vec<Drift> = first.get_or_insert_with(|| finding.repairs.drifts.clone());
            if is_right || self.start_repair(finding, None).await.map_err(broken_off)?? == Repaired::Complete {
                return Ok(std::mem::take(drifts));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Compares the events near their window, and repairs what has been wrong since the round before.
    pub async fn run_near(&self) -> Result<(), Error> {
        let events = self.near.next_round().await?;
        self.forget_all_but(&events);
        for page in events.chunks(EVENTS_PER_PAGE) {
            let items = self.items_of_each(page).await?;
            let compared = stream::iter(items);
            compared.for_each_concurrent(MAX_CONCURRENT_EVENTS, |items| self.look_at_near(items)).await;
        }
        Ok(())
    }

    /// Tells Redis of an event's items and window as they are now, and strikes the event off those of which it is to be
    /// told. Buyers that Redis lost are copied behind the call, if that takes long; until then it stays on the list.
    pub async fn restage(&self, event: EventId) -> Result<(), Error> {
        let items = self.items_of(event).await?;
        let version = items.iter().map(|item| item.event_version).max().unwrap_or(i64::MAX);
        if self.look_at(items, &Settled::none()).await {
            let strike_off = self.db.run("strike_off_restage", |mut conn| async move {
                store::restages::delete(&mut conn, event, version).await
            });
            strike_off.await?;
        }
        Ok(())
    }

    async fn look_at_near(&self, items: Vec<Item>) {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return };
        self.near.begun(event_id);
        let seen = self.see(event_id, &items);
        if seen.is_empty() && items.iter().all(Item::is_new) {
            // Whoever has just written it is staging it. Of two who do, the second would take what the first is about
            // to stage for lost, and leave out places of arrival.
            return;
        }
        let settled = Settled::Seen(seen);
        self.look_at(items, &settled).await;
    }

    /// Remembers to look at an event that is not ready.
    pub fn ask(&self, event: EventId) {
        self.asked.add(event);
    }

    /// Notes the versions of the items, and returns those of the round before.
    fn see(&self, event: EventId, items: &[Item]) -> LedgerVersions {
        let versions = items.iter().map(|item| (item.id(), item.committed.version)).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(event, versions).unwrap_or_default()
    }

    fn forget_all_but(&self, events: &[EventId]) {
        let events: HashSet<&EventId> = events.iter().collect();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|event, _| events.contains(event));
    }

    /// Compares an event and repairs it. Returns whether it is as it should be now; what keeps it from that is logged.
    pub(super) async fn look_at(&self, items: Vec<Item>, settled: &Settled) -> bool {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return true };
        match self.compare(items, settled).await {
            Ok(None) => true,
            Ok(Some(finding)) => finding.repairs.is_empty() || self.repair_in_time(finding).await,
            Err(error) => {
                tracing::warn!(event.id = %event_id, error.cause = %error, "redis could not be compared with the ledger");
                false
            }
        }
    }

    /// Repairs, and leaves behind what takes long. Returns whether it is done.
    async fn repair_in_time(&self, finding: Finding) -> bool {
        let Ok(Ok(permit)) = timeout(PATIENCE, self.permits.clone().acquire_owned()).await else { return false };
        let repair = self.start_repair(finding, Some(permit));
        matches!(timeout(PATIENCE, repair).await, Ok(Ok(Ok(Repaired::Complete))))
    }

    fn start_repair(
        &self,
        finding: Finding,
        permit: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<Result<Repaired, Error>> {
        let this = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let event_id = finding.event_id;
            let outcome = this.repair(finding).await;
            if let Err(error) = &outcome {
                tracing::warn!(event.id = %event_id, error.cause = %error, "redis could not be repaired, trying again");
            }
            outcome
        })
    }

    pub(super) async fn items_of(&self, event: EventId) -> Result<Vec<Item>, DbError> {
        self.db
            .run("items_of_event", |mut conn| async move { store::stock::of_events(&mut conn, &[event]).await })
            .await
    }

    /// The items of these events, each event's together. Where that fails for what is in it, and not for the database,
    /// each event is read on its own, so that a row that can't be read keeps nobody else waiting.
    pub(super) async fn items_of_each(&self, events: &[EventId]) -> Result<Vec<Vec<Item>>, DbError> {
        let read =
            self.db.run("items_of_events", |mut conn| async move { store::stock::of_events(&mut conn, events).await });
        let outcome: Result<Vec<Item>, DbError> = read.await;
        let error = match outcome {
            Ok(items) => {
                let by_event = items.chunk_by(|one, next| one.event_id == next.event_id);
                return Ok(by_event.map(<[Item]>::to_vec).collect());
            }
            Err(error) => error,
        };
        if !error.is_of_data() {
            return Err(error);
        }
        let mut all = Vec::new();
        for event in events {
            match self.items_of(*event).await {
                Ok(items) => all.push(items),
                Err(error) => {
                    tracing::error!(event.id = %event, error.cause = %error, "the stock of an event could not be read");
                }
            }
        }
        Ok(all)
    }

    /// Compares an event of which these are the items; `None` if there are none.
    async fn compare(&self, items: Vec<Item>, settled: &Settled) -> Result<Option<Finding>, Error> {
        let Some(event_id) = items.first().map(|item| item.event_id) else { return Ok(None) };
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.redis.snapshot(event_id, &ids).await?;
        let compared = snapshot.event.as_ref().filter(|event| event.is_compared);
        let is_compared = compared.is_some();
        let copied = Copied {
            event_version: compared.map(|event| event.event_version),
            miscounted: self.count_held(event_id, &ids, &snapshot).await?,
            items: snapshot.items.iter().map(|item| item.as_ref().map(copied)).collect(),
        };
        // Of a server that has started anew the ledger is read after it: what came between was copied to the one
        // before.
        let newer = if is_compared { Vec::new() } else { self.items_of(event_id).await? };
        let items = if newer.len() == items.len() { newer } else { items };
        // What a server that has started anew has may be an old copy, so all of it has to be as new as the ledger.
        let all = Settled::All;
        let settled = if is_compared { settled } else { &all };
        let repairs = Repairs::find(&items, &copied, |item| settled.version_of(item));
        let arrivals = snapshot.event.as_ref().map_or(0, |event| event.arrivals);
        Ok(Some(Finding { event_id, items, repairs, run_id: snapshot.run_id, is_compared, arrivals }))
    }

    /// Compares what is on hold of the items with the holds, and sets it right. Returns the items of which buyers
    /// without a hold are still to be counted.
    async fn count_held(&self, event: EventId, ids: &[ItemId], snapshot: &Snapshot) -> Result<Vec<ItemId>, Error> {
        let staged = || snapshot.items.iter().flatten();
        let is_any_held =
            snapshot.hold_count > 0 || staged().any(|item| (item.held_units, item.gift_held_units) != (0, 0));
        if !is_any_held && !staged().any(|item| item.has_uncounted_buyers) {
            return Ok(Vec::new());
        }
        let wrong = self.redis.count_held(event, ids).await?;
        let mut miscounted = Vec::new();
        for ((id, staged), wrong) in ids.iter().zip(&snapshot.items).zip(wrong) {
            if wrong > 0 {
                tracing::warn!(
                    event.id = %event,
                    item.id = %id,
                    repair.numbers = wrong,
                    "units on hold were not those of the holds"
                );
            }
            if wrong > 0 || staged.is_some_and(|item| item.has_uncounted_buyers) {
                miscounted.push(*id);
            }
        }
        Ok(miscounted)
    }

    async fn repair(&self, finding: Finding) -> Result<Repaired, Error> {
        let repairs = &finding.repairs;
        let (stage, restored, recounted) = (repairs.stage, repairs.restore.len(), repairs.recount.len());
        tracing::info!(
            event.id = %finding.event_id,
            repair.stage = stage,
            repair.items = restored,
            repair.recounts = recounted,
            "repairing redis by the ledger"
        );
        for item in &repairs.recount {
            self.recount(finding.event_id, *item).await?;
        }
        if self.restore(&finding).await? == Repaired::Pending {
            return Ok(Repaired::Pending);
        }
        if stage {
            let arrivals_at_least = if finding.is_compared { 0 } else { self.arrivals_after_loss(&finding).await? };
            self.sync.stage(&finding.items, arrivals_at_least, &finding.run_id).await?;
        }
        Ok(Repaired::Complete)
    }

    /// Copies the buyers of all items that need it, some items side by side.
    async fn restore(&self, finding: &Finding) -> Result<Repaired, Error> {
        let items: HashMap<ItemId, Item> = finding.items.iter().map(|item| (item.id(), *item)).collect();
        let copies = finding.repairs.restore.clone().into_iter().filter_map(|restore| {
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

    /// Sets what is on hold of an item, and by whom, to what the holds say.
    async fn recount(&self, event: EventId, item: ItemId) -> Result<(), Error> {
        let (mut cursor, mut wrong) = (Some(0), 0);
        while let Some(from) = cursor {
            let (next, corrected) = self.redis.recount(event, item, from, RECOUNT_PAGE).await?;
            (cursor, wrong) = (next, wrong + corrected);
        }
        if wrong > 0 {
            tracing::warn!(event.id = %event, item.id = %item, repair.numbers = wrong, "buyers had units on hold without a hold");
        }
        Ok(())
    }

    /// Where arrivals go on when Redis may have lost how many there were: beyond all that an order may have, and beyond
    /// where they went on after the loss before. An event that was never in Redis begins with the first.
    async fn arrivals_after_loss(&self, finding: &Finding) -> Result<i64, Error> {
        let event = finding.event_id;
        let last: i64 = self
            .db
            .run("last_arrival", |mut conn| async move { store::ledger::last_arrival(&mut conn, event).await })
            .await?;
        let beyond = |floor: i64| floor.max(last).max(finding.arrivals) + ARRIVALS_SKIPPED;
        let floor = finding.items.iter().filter_map(|item| item.arrivals_floor).max();
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

fn broken_off(_: tokio::task::JoinError) -> DbError {
    DbError::BrokenOff("repair_redis")
}
