//! The timed transitions SCHEDULED -> OPEN -> CLOSED, each exactly once and never early.
//!
//! Any number of replicas may try the same events concurrently, woken by a timer or by the sweep. The row lock
//! serializes them: the first makes the transition, the others find nothing due. Nobody waits for it: one event that is
//! locked, by a replica that stands still perhaps, must not make the others late.

use super::SeenQueue;
use crate::{
    domain::{Advanced, Due, Schedule},
    store,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, Timestamp};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Most events of one transaction.
pub const BATCH_SIZE: usize = 100;
/// Transactions of one call at a time: while the database commits one, the next is on its way.
const MAX_IN_FLIGHT: usize = 2;
/// Most events that are read ahead.
const MAX_UPCOMING: u32 = 2_000;

static LATENESS: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("stampede.event")
        .f64_histogram("stampede_event_lateness_seconds")
        .with_description("From the time an event was to open or close until that was committed")
        .with_boundaries(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0])
        .build()
});

static MISSED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("stampede.event")
        .u64_counter("stampede_event_missed_transitions")
        .with_description("Openings and closings that were later than a missed one is")
        .build()
});

/// Opens and closes events. Cheap to clone.
#[derive(Clone)]
pub struct AdvanceEvents {
    db: Database,
    outbox: Outbox,
    seen: SeenQueue,
    missed_after: Duration,
}

impl AdvanceEvents {
    /// Opens and closes events of this schema, and hands over to `seen` what was committed. A transition that is later
    /// than `missed_after` counts as missed.
    pub fn new(db: Database, outbox: Outbox, seen: SeenQueue, missed_after: Duration) -> Self {
        Self { db, outbox, seen, missed_after }
    }

    /// [`Self::run`] for many events, in batches of which each is a transaction of its own.
    pub async fn run_all(&self, batches: Vec<Vec<EventId>>) -> Result<(), DbError> {
        let batches = stream::iter(batches).map(Ok::<_, DbError>);
        batches.try_for_each_concurrent(MAX_IN_FLIGHT, |ids| async move { self.run(ids).await.map(drop) }).await
    }

    /// [`Self::run_all`] for events whose timers have expired. Most often somebody has made their transitions already,
    /// which one read finds.
    pub async fn run_expired(&self, expired: Vec<EventId>) -> Result<(), DbError> {
        let now = self.now();
        let read = self
            .db
            .run("still_due", |mut conn| async move { store::events::still_due(&mut conn, &expired, now).await });
        let due: Vec<EventId> = read.await?;
        self.run_all(due.chunks(BATCH_SIZE).map(<[EventId]>::to_vec).collect()).await
    }

    /// Makes every transition of these events that is due now, in one transaction. Leaves out the events that somebody
    /// else has locked: they are still due then, unless that one makes the transition. Returns the transitions.
    #[tracing::instrument(skip_all, fields(event.count = ids.len()))]
    pub async fn run(&self, ids: Vec<EventId>) -> Result<Advanced, DbError> {
        let ids = Arc::new(ids);
        let work = self.db.transact("advance_events", move |conn| {
            let ids = ids.clone();
            Box::pin(async move { advance(conn, &ids).await })
        });
        let advanced = work.await?;
        if !advanced.is_empty() {
            self.seen.push(&advanced);
            self.outbox.wake();
            self.record(&advanced, Timestamp::now());
        }
        Ok(advanced)
    }

    /// Returns the events with a transition due before `until`, the earliest first. There is a bound to how many: more
    /// are read once these are done.
    pub async fn upcoming(&self, until: Timestamp) -> Result<Vec<Due>, DbError> {
        self.db
            .run(
                "upcoming_events",
                |mut conn| async move { store::events::next_due(&mut conn, until, MAX_UPCOMING).await },
            )
            .await
    }

    /// The time by the clock that all replicas go by.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn record(&self, advanced: &Advanced, committed_at: Timestamp) {
        let opened = advanced.opened.iter().map(|schedule| (schedule, "open", schedule.times.open_time()));
        let closed = advanced.closed.iter().map(|schedule| (schedule, "close", schedule.times.close_time()));
        for (Schedule { event_id, .. }, transition, due_at) in opened.chain(closed) {
            let late = committed_at.since(due_at);
            let is_missed = late > self.missed_after;
            let labels = [KeyValue::new("transition", transition)];
            LATENESS.record(late.as_secs_f64(), &labels);
            // Also what was in time, so that there is a count before the first miss.
            MISSED.add(is_missed.into(), &labels);
            let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
            if is_missed {
                tracing::warn!(
                    event.id = %event_id,
                    event.transition = transition,
                    event.late_us = late_us,
                    "event advanced after its time was missed"
                );
            } else {
                tracing::info!(
                    event.id = %event_id,
                    event.transition = transition,
                    event.late_us = late_us,
                    "event advanced"
                );
            }
        }
    }
}

async fn advance(conn: &mut MySqlConnection, ids: &[EventId]) -> Result<Advanced, DbError> {
    let locked = store::events::lock_free(conn, ids, Timestamp::now()).await?;
    // Read after the locks, since an opening must not be recorded as earlier than it was.
    let now = Timestamp::now();
    let advanced = Advanced::at(now, locked);
    // Both, in this order: an event that was due to open and to close since the last round opens first.
    store::events::open(conn, &advanced.opened, now).await?;
    store::events::close(conn, &advanced.closed, now).await?;
    store::outbox::append(conn, &advanced.messages()).await?;
    Ok(advanced)
}
