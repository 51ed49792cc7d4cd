//! Checks that events that open soon are staged: a minute ahead, so that there is time for repair, and again at the
//! opening.
//!
//! The check repairs nothing: it queues missing events for the reconciler, counts and logs them.

use super::{
    Error, Reconcile,
    reconcile::{EVENTS_PER_PAGE, MAX_CONCURRENT_EVENTS},
    staging_watch::{Phase, StagingWatch},
};
use crate::{domain::Item, store};
use futures_util::{StreamExt, stream};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};
use stampede_db::DbError;
use stampede_lua::stock::Snapshot;
use stampede_vocab::{EventId, ItemId, Timestamp};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long after its opening an event is still checked.
const AFTER_OPENING: Duration = Duration::from_secs(60);
/// Most events that are watched at a time: the ones that open first.
const MAX_WATCHED: u32 = 10_000;

/// Checks that events that open soon are staged.
pub struct CheckStaging {
    reconcile: Reconcile,
    lead: Duration,
    watch: Mutex<StagingWatch>,
    unstaged: Gauge<u64>,
    failures: Counter<u64>,
}

impl CheckStaging {
    /// Returns the check of events from `lead` before their opening on, with repairs by `reconcile`.
    pub fn new(reconcile: Reconcile, lead: Duration) -> Self {
        let meter = global::meter("stampede.inventory");
        Self {
            reconcile,
            lead,
            watch: Mutex::default(),
            unstaged: meter
                .u64_gauge("stampede_stock_unstaged_events")
                .with_description("Events near their opening whose stock is not in Redis as it should be")
                .build(),
            failures: meter
                .u64_counter("stampede_stock_staging_failures")
                .with_description("Events whose stock was found not to be in Redis before or at their opening")
                .build(),
        }
    }

    /// Makes one round. Events that are known to be staged cost one index read. An event that cannot be checked does
    /// not end the round; a whole page of them does, since Redis is away then. Fails at the end if any check failed.
    pub async fn run(&self) -> Result<(), Error> {
        let now = Timestamp::now();
        let upcoming = self.opening_soon(now).await?;
        let events = self.watch().due(&upcoming, now);
        let mut outcome = Ok(());
        for page in events.chunks(EVENTS_PER_PAGE) {
            let items = self.reconcile.items_of_each(page).await?;
            let checks = items.into_iter().map(|items| self.check(items));
            let checked: Vec<Result<(), Error>> =
                stream::iter(checks).buffer_unordered(MAX_CONCURRENT_EVENTS).collect().await;
            let is_away = !checked.is_empty() && checked.iter().all(Result::is_err);
            outcome = checked.into_iter().fold(outcome, Result::and);
            if is_away {
                break;
            }
        }
        self.measure();
        outcome
    }

    async fn opening_soon(&self, now: Timestamp) -> Result<Vec<(EventId, Timestamp)>, DbError> {
        let (from, until) = (now.minus(AFTER_OPENING), now.plus(self.lead));
        self.reconcile
            .db
            .run("events_opening", |mut conn| async move {
                store::stock::opening(&mut conn, (from, until), MAX_WATCHED).await
            })
            .await
    }

    async fn check(&self, items: Vec<Item>) -> Result<(), Error> {
        let Some(event) = items.first().map(|item| item.event_id) else { return Ok(()) };
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.reconcile.redis.snapshot(event, &ids).await?;
        let is_staged = is_staged(&items, &snapshot);
        if !is_staged {
            self.reconcile.request_recheck(event);
        }
        let newly_missing = self.watch().record(event, is_staged, Timestamp::now());
        if let Some(phase) = newly_missing {
            self.failures.add(1, &[label(phase)]);
            tracing::warn!(event.id = %event, event.stage = phase.as_str(), "the stock of an event is not staged");
        }
        Ok(())
    }

    fn measure(&self) {
        let watch = self.watch();
        for phase in Phase::ALL {
            self.unstaged.record(watch.missing(phase), &[label(phase)]);
            // Adds 0, so that the counter exists before the first failure.
            self.failures.add(0, &[label(phase)]);
        }
    }

    fn watch(&self) -> MutexGuard<'_, StagingWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label(phase: Phase) -> KeyValue {
    KeyValue::new("stage", phase.as_str())
}

/// Returns whether Redis has all these items of one event, at the ledger's version or newer, and may sell them.
fn is_staged(items: &[Item], snapshot: &Snapshot) -> bool {
    let version = items.iter().map(|item| item.event_version).max();
    let is_current = |event_version: i64| Some(event_version) >= version;
    snapshot.event.is_some_and(|event| event.is_compared && is_current(event.event_version))
        && snapshot.items.iter().all(Option::is_some)
}
