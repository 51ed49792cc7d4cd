//! What the service does, one file per verb. Transactions begin and end here; SQL and contracts are elsewhere.

mod arm_timers;
mod cancel_event;
mod create_event;
mod read_events;
mod reschedule_event;
mod turn_due_events;

pub use arm_timers::ArmError;
pub use read_events::Page;
pub use turn_due_events::BATCH;

use crate::{
    domain::{Outgoing, Refusal, Schedule},
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_lua::Redis;
use stampede_outbox::Outbox;
use stampede_vocab::{EventId, SharedClock};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// A verb that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It was refused for a reason that the caller should know.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// All that the verbs work with. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    db: Database,
    redis: Redis,
    outbox: Outbox,
    clock: SharedClock,
    reschedule_lead: Duration,
    times_changed: Arc<Notify>,
}

impl Events {
    /// `reschedule_lead` is the least time between a reschedule and the old opening, and between it and the new one.
    pub fn new(db: Database, redis: Redis, outbox: Outbox, clock: SharedClock, reschedule_lead: Duration) -> Self {
        Self { db, redis, outbox, clock, reschedule_lead, times_changed: Arc::new(Notify::new()) }
    }

    /// Waits until this replica has changed the times of an event. One waiter is enough for all changes.
    pub async fn times_changed(&self) {
        self.times_changed.notified().await;
    }

    /// What follows the commit of a change of times: everybody who waits for the event hears of it.
    async fn times_committed(&self, schedule: &Schedule) {
        self.outbox.wake();
        self.times_changed.notify_one();
        self.arm(schedule).await;
    }
}

/// Locks one event for a change; the refusal is that there is none.
async fn lock_one(tx: &mut MySqlConnection, id: EventId) -> Result<Result<Schedule, Refusal>, DbError> {
    let locked = store::events::lock(tx, &[id]).await?;
    Ok(locked.first().copied().ok_or(Refusal::NotFound(id)))
}

/// Stores a change of one locked event with its message.
async fn store_change(
    tx: &mut MySqlConnection,
    before: &Schedule,
    after: &Schedule,
    message: Outgoing,
) -> Result<(), DbError> {
    store::events::replace(tx, before, after).await?;
    store::outbox::append(tx, &[message]).await
}
