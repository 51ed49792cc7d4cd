//! The transitions that time brings about: SCHEDULED -> OPEN -> CLOSED, each exactly once and never early.
//!
//! Any number of replicas may try the same events at the same time, woken by a timer or by the sweep. The row lock
//! lets one of them through; the others find nothing due.

use crate::{
    domain::{Due, Schedule, Turned},
    store,
    usecase::Events,
};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{EventId, Timestamp};
use std::sync::{Arc, LazyLock};

/// Most events that one transaction turns.
pub const BATCH: u32 = 100;

static LATENESS: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("stampede.event")
        .f64_histogram("stampede_event_lateness_seconds")
        .with_description("From the time an event was to open or close until that was committed")
        .with_boundaries(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0])
        .build()
});

impl Events {
    /// Brings about every transition of these events that is due now, or fails with none of them brought about.
    #[tracing::instrument(skip_all, fields(event.count = ids.len()))]
    pub async fn turn(&self, ids: Vec<EventId>) -> Result<Turned, DbError> {
        let (ids, clock) = (Arc::new(ids), self.clock.clone());
        let work = self.db.transact("turn_due_events", move |tx| {
            let (ids, clock) = (ids.clone(), clock.clone());
            Box::pin(async move { turn_locked(tx, &ids, || clock.now()).await })
        });
        let turned = work.await?;
        if !turned.is_empty() {
            self.outbox.wake();
            record(&turned, self.clock.now());
        }
        Ok(turned)
    }

    /// The next events that time will change, the earliest first, [`BATCH`] at most.
    pub async fn upcoming(&self) -> Result<Vec<Due>, DbError> {
        let mut conn = self.db.acquire().await?;
        store::events::next_due(&mut conn, BATCH).await
    }

    /// The time by the service's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

async fn turn_locked(
    tx: &mut MySqlConnection,
    ids: &[EventId],
    now: impl Fn() -> Timestamp,
) -> Result<Turned, DbError> {
    let locked = store::events::lock(tx, ids).await?;
    // The time counts from when the locks were had, so an opening is never told as earlier than it was.
    let now = now();
    let turned = Turned::at(now, locked);
    store::events::open(tx, &turned.opened, now).await?;
    store::events::close(tx, &turned.closed, now).await?;
    store::outbox::append(tx, &turned.messages()).await?;
    Ok(turned)
}

fn record(turned: &Turned, committed_at: Timestamp) {
    let opened = turned.opened.iter().map(|schedule| (schedule, "open", schedule.times.opens_at()));
    let closed = turned.closed.iter().map(|schedule| (schedule, "close", schedule.times.closes_at()));
    for (Schedule { event_id, .. }, transition, due_at) in opened.chain(closed) {
        let late = committed_at.since(due_at);
        LATENESS.record(late.as_secs_f64(), &[KeyValue::new("transition", transition)]);
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(event.id = %event_id, event.transition = transition, event.late_us = late_us, "event turned");
    }
}
