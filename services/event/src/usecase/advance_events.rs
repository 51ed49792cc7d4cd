//! The timed transitions SCHEDULED -> OPEN -> CLOSED, each exactly once and never early.
//!
//! Any number of replicas may try the same events concurrently, woken by a timer or by the sweep. The row lock
//! serializes them: the first makes the transition, the others find nothing due. The lock is never waited for (SKIP
//! LOCKED): an event that a stalled replica has locked must not delay the others.

use super::{SeenQueue, readable};
use crate::{
    domain::{Advanced, Due, Schedule},
    store::{self, events::StoredSchedule},
};
use futures_util::future::join_all;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, Statements};
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, Timestamp};
use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

/// Most events of one transaction. Three replicas with [`MAX_IN_FLIGHT`] each take a thousand openings of one instant
/// at once: a second round would wait for its round trips and commits while the machine is busiest.
const BATCH_SIZE: u32 = 200;
/// Concurrent transactions of one call: while the database commits one, the next is prepared.
const MAX_IN_FLIGHT: usize = 2;
/// Events of one page that is read ahead.
const UPCOMING_PAGE: u32 = 2_000;

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

/// The outcome of one transaction.
#[derive(Debug)]
struct Batch {
    /// Number of events that it had locked.
    locked: usize,
    /// Those of them that cannot be read.
    unreadable: Vec<EventId>,
    advanced: Advanced,
}

/// Opens and closes events. Cheap to clone.
#[derive(Clone)]
pub struct AdvanceEvents {
    db: Database,
    outbox: Outbox,
    seen: SeenQueue,
    missed_after: Duration,
}

impl AdvanceEvents {
    /// Returns the use case on this schema. It queues committed transitions at `seen`. A transition later than
    /// `missed_after` counts as missed.
    pub fn new(db: Database, outbox: Outbox, seen: SeenQueue, missed_after: Duration) -> Self {
        Self { db, outbox, seen, missed_after }
    }

    /// Makes every transition that is due now, in batches of one transaction each. `expected` estimates how many there
    /// are, and sets the number of concurrent batches. Skips events that another transaction has locked: they stay due
    /// unless that one makes the transition. Events that cannot be read stay due too, and are returned.
    pub async fn run(&self, expected: usize) -> Result<BTreeSet<EventId>, DbError> {
        let concurrency = expected.div_ceil(BATCH_SIZE as usize).clamp(1, MAX_IN_FLIGHT);
        let runs = (0..concurrency).map(|_| self.run_until_done());
        let unreadable: Result<Vec<_>, DbError> = join_all(runs).await.into_iter().collect();
        Ok(unreadable?.into_iter().flatten().collect())
    }

    async fn run_until_done(&self) -> Result<Vec<EventId>, DbError> {
        let mut unreadable = Vec::new();
        loop {
            let mut batch = self.run_batch(&unreadable).await?;
            let is_last = batch.advanced.is_empty() && batch.unreadable.is_empty();
            // They stay due: the next batch is without them, so that they take no other's place in it.
            unreadable.append(&mut batch.unreadable);
            if is_last || batch.locked < BATCH_SIZE as usize {
                return Ok(unreadable);
            }
        }
    }

    #[tracing::instrument(skip_all)]
    async fn run_batch(&self, without: &[EventId]) -> Result<Batch, DbError> {
        let mut opening = Statements::new();
        let place = store::events::push_lock_due(&mut opening, self.now(), without, BATCH_SIZE);
        let work = self.db.transact_after("advance_events", opening, move |conn, answers| {
            Box::pin(async move { advance(conn, store::events::locked(&answers, place)?).await })
        });
        let batch: Result<Batch, DbError> = work.await;
        let batch = batch?;
        if !batch.advanced.is_empty() {
            self.seen.push(&batch.advanced);
            self.outbox.wake();
            self.record(&batch.advanced, Timestamp::now());
        }
        Ok(batch)
    }

    /// Returns the events with a transition due before `until`, the earliest first, up to a limit: later calls return
    /// the rest. Those that were just tried and are due all the same do not count, so that they hide no other.
    pub async fn upcoming(&self, until: Timestamp, tried: &BTreeSet<EventId>) -> Result<Vec<Due>, DbError> {
        let now = self.now();
        self.db
            .run("upcoming_events", |mut conn| async move {
                store::due::read_ahead(&mut conn, (now, until), tried, UPCOMING_PAGE).await
            })
            .await
    }

    /// Returns the time by the clock that all replicas share.
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
            // Adds 0 for a transition in time, so that the counter exists before the first miss.
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

async fn advance(conn: &mut MySqlConnection, locked: Vec<(EventId, StoredSchedule)>) -> Result<Batch, DbError> {
    // Read after the locks, since an opening must not be recorded as earlier than it was.
    let now = Timestamp::now();
    let count = locked.len();
    let mut unreadable = Vec::new();
    let schedules = locked.into_iter().filter_map(|(id, schedule)| {
        let schedule = readable(id, schedule);
        if schedule.is_none() {
            unreadable.push(id);
        }
        schedule
    });
    let advanced = Advanced::at(now, schedules);
    let mut writes = Statements::new();
    // In this order: an event that was due to open and to close since the last round opens first.
    store::events::push_open(&mut writes, &advanced.opened, now);
    store::events::push_close(&mut writes, &advanced.closed, now);
    store::outbox::push_append(&mut writes, &advanced.messages());
    writes.run(conn).await?;
    Ok(Batch { locked: count, unreadable, advanced })
}
