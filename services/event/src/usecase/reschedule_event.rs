//! RescheduleEvent: moves the times of an event that has not opened yet.

use super::{
    Error, ScheduleChanges,
    schedule_changes::{lock_one, store_change},
};
use crate::{
    client::Inventory,
    domain::{Event, Refusal, Times},
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;

/// Moves events. Cheap to clone.
#[derive(Clone)]
pub struct RescheduleEvent {
    db: Database,
    changes: ScheduleChanges,
    inventory: Inventory,
    lead: Duration,
}

impl RescheduleEvent {
    /// Returns the use case on this schema. It notifies `inventory`. `lead` is the least time between a reschedule and
    /// the old opening, and between it and the new one.
    pub fn new(db: Database, changes: ScheduleChanges, inventory: Inventory, lead: Duration) -> Self {
        Self { db, changes, inventory, lead }
    }

    /// Moves the event to `times` if it has the expected version. Returns once inventory has the new window. Fails if
    /// less than the lead is left, because inventory must receive the new window before the old one begins. If the
    /// event has these times already, only notifies inventory again.
    pub async fn run(&self, id: EventId, times: Times, expected_version: Option<i64>) -> Result<Event, Error> {
        let lead = self.lead;
        let work = self.db.transact_with("reschedule_event", move |conn| {
            Box::pin(async move { move_times(conn, id, (times, expected_version), lead).await })
        });
        let event = work.await?;
        self.changes.times_committed(&event.schedule).await;
        self.inventory.confirm(&event).await?;
        Ok(event)
    }
}

async fn move_times(
    conn: &mut MySqlConnection,
    id: EventId,
    (times, expected_version): (Times, Option<i64>),
    lead: Duration,
) -> Result<Event, Error> {
    let before = lock_one(conn, id).await?;
    let event_before = store::events::find(conn, id).await?;
    let event_before = event_before.ok_or_else(|| DbError::inconsistent(format!("{id} is locked and not there")))?;
    if before.is_scheduled_at(times) {
        // Usually a repeat: inventory had not confirmed it, or the answer was lost.
        return Ok(event_before);
    }
    // Read after the lock: waiting for it must not shorten the lead.
    let now = Timestamp::now();
    let after = before.reschedule(times, now, lead)?;
    times
        .opening_from(now.plus(lead), format!("must be at least {} ms ahead", lead.as_millis()))
        .map_err(Refusal::from)?;
    // Last: that the event has opened is the better reason to give.
    before.ensure_version(expected_version)?;
    let event = Event { schedule: after, ..event_before };
    store_change(conn, &before, &after, event.scheduled()).await?;
    Ok(event)
}
