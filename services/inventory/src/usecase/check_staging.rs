//! Checks that what opens soon is staged: a minute ahead, so that there is time to mend it, and again at the opening.
//!
//! The check mends nothing itself: what is missing it hands to the rounds of the reconciler, counts it and says so.

use super::{
    Error, Reconcile,
    reconcile::{EVENTS_PER_PAGE, MAX_CONCURRENT_EVENTS},
    staging_watch::{Stage, StagingWatch},
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

/// How long after its opening an event is still looked at.
const AFTER_OPENING: Duration = Duration::from_secs(60);
/// Most events that are watched at a time, the first to open first.
const MAX_WATCHED: u32 = 10_000;

/// Checks that what opens soon is staged.
pub struct CheckStaging {
    reconcile: Reconcile,
    lead: Duration,
    watch: Mutex<StagingWatch>,
    unstaged: Gauge<u64>,
    failures: Counter<u64>,
}

impl CheckStaging {
    /// Looks at events from `lead` before their opening on, and has them repaired by `reconcile`.
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

    /// Makes one round. Events that were seen to be staged cost one read of an index. An event that cannot be looked at
    /// does not end the round for those behind it; where that is a whole page of them, Redis is away. Fails at the end
    /// then.
    pub async fn run(&self) -> Result<(), Error> {
        let now = Timestamp::now();
        let near = self.near(now).await?;
        let events = self.watch().next(&near, now);
        let mut outcome = Ok(());
        for page in events.chunks(EVENTS_PER_PAGE) {
            let items = self.reconcile.items_of_each(page).await?;
            let looks = items.into_iter().map(|items| self.look_at(items));
            let looked: Vec<Result<(), Error>> =
                stream::iter(looks).buffer_unordered(MAX_CONCURRENT_EVENTS).collect().await;
            let is_away = !looked.is_empty() && looked.iter().all(Result::is_err);
            outcome = looked.into_iter().fold(outcome, Result::and);
            if is_away {
                break;
            }
        }
        self.measure();
        outcome
    }

    async fn near(&self, now: Timestamp) -> Result<Vec<(EventId, Timestamp)>, DbError> {
        let (from, until) = (now.minus(AFTER_OPENING), now.plus(self.lead));
        self.reconcile
            .db
            .run("events_opening", |mut conn| async move {
                store::stock::opening(&mut conn, (from, until), MAX_WATCHED).await
            })
            .await
    }

    async fn look_at(&self, items: Vec<Item>) -> Result<(), Error> {
        let Some(event) = items.first().map(|item| item.event_id) else { return Ok(()) };
        let ids: Vec<ItemId> = items.iter().map(Item::id).collect();
        let snapshot = self.reconcile.redis.snapshot(event, &ids).await?;
        let is_staged = is_staged(&items, &snapshot);
        if !is_staged {
            self.reconcile.ask(event);
        }
        let news = self.watch().note(event, is_staged, Timestamp::now());
        if let Some(stage) = news {
            self.failures.add(1, &[label(stage)]);
            tracing::warn!(event.id = %event, event.stage = stage.as_str(), "the stock of an event is not staged");
        }
        Ok(())
    }

    fn measure(&self) {
        let watch = self.watch();
        for stage in Stage::ALL {
            self.unstaged.record(watch.missing(stage), &[label(stage)]);
            // So that there is a count before the first failure.
            self.failures.add(0, &[label(stage)]);
        }
    }

    fn watch(&self) -> MutexGuard<'_, StagingWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label(stage: Stage) -> KeyValue {
    KeyValue::new("stage", stage.as_str())
}

/// Whether Redis has these items of one event, at the version that the ledger has, and may sell them.
fn is_staged(items: &[Item], snapshot: &Snapshot) -> bool {
    let version = items.iter().map(|item| item.event_version).max();
    let is_current = |event_version: i64| Some(event_version) >= version;
    snapshot.event.is_some_and(|event| event.is_compared && is_current(event.event_version))
        && snapshot.items.iter().all(Option::is_some)
}
