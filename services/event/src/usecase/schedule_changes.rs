//! Changes of an event's schedule: the write with its message, and the effects after the commit.

use super::ArmTimers;
use crate::{
    domain::{OutgoingMessage, Refusal, Schedule},
    store,
    usecase::Error,
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_outbox::Outbox;
use stampede_vocab::EventId;
use std::sync::Arc;
use tokio::sync::Notify;

/// Notifies the relay, the sweep and the timers that a schedule has changed. Cheap to clone.
#[derive(Clone)]
pub struct ScheduleChanges {
    outbox: Outbox,
    timers: ArmTimers,
    times_changed: Arc<Notify>,
}

impl ScheduleChanges {
    /// Returns a notifier of this relay and these timers.
    pub fn new(outbox: Outbox, timers: ArmTimers) -> Self {
        Self { outbox, timers, times_changed: Arc::new(Notify::new()) }
    }

    /// Waits until this replica has changed the times of an event. Supports one waiter.
    pub async fn times_changed(&self) {
        self.times_changed.notified().await;
    }

    /// To be called after the commit of new times: wakes the relay and the due sweep, and arms the timers.
    pub(super) async fn times_committed(&self, schedule: &Schedule) {
        self.outbox.wake();
        self.times_changed.notify_one();
        self.timers.arm(schedule).await;
    }

    /// To be called after the commit of a cancellation: wakes the relay, and disarms the timers.
    pub(super) async fn end_committed(&self, schedule: &Schedule) {
        self.outbox.wake();
        self.timers.disarm(schedule).await;
    }
}

/// Locks one event for a change.
pub(super) async fn lock_one(conn: &mut MySqlConnection, id: EventId) -> Result<Schedule, Error> {
    let locked = store::events::lock(conn, &[id]).await?;
    Ok(locked.first().copied().ok_or(Refusal::NotFound(id))?)
}

/// Stores a change of one locked event with its message.
pub(super) async fn store_change(
    conn: &mut MySqlConnection,
    before: &Schedule,
    after: &Schedule,
    message: OutgoingMessage,
) -> Result<(), DbError> {
    store::events::replace(conn, before, after).await?;
    store::outbox::append(conn, &[message]).await
}
