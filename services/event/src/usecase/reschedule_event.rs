//! RescheduleEvent: other times for an event that has not opened yet.

use crate::{
    domain::{Event, Refusal, Times},
    store,
    usecase::{EventError, Events, lock_one, store_change},
};
use sqlx::MySqlConnection;
use stampede_db::DbError;
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;

impl Events {
    /// Moves the event to `times`. Refused once less than the lead is left, because the replicas of inventory must
    /// hear of the new window before the old one begins.
    pub async fn reschedule(&self, id: EventId, times: Times) -> Result<Event, EventError> {
        let (clock, lead) = (self.clock.clone(), self.reschedule_lead);
        let earliest = clock.now().plus(lead);
        times
            .opening_from(earliest, format!("must be at least {} ms ahead", lead.as_millis()))
            .map_err(Refusal::from)?;
        let work = self.db.transact("reschedule_event", move |tx| {
            let clock = clock.clone();
            Box::pin(async move { move_times(tx, id, times, || clock.now(), lead).await })
        });
        let event = work.await??;
        self.times_committed(&event.schedule).await;
        Ok(event)
    }
}

async fn move_times(
    tx: &mut MySqlConnection,
    id: EventId,
    times: Times,
    now: impl Fn() -> Timestamp,
    lead: Duration,
) -> Result<Result<Event, Refusal>, DbError> {
    let before = match lock_one(tx, id).await? {
        Ok(before) => before,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // The time counts from when the lock was had: waiting for it must not eat into the lead.
    let after = match before.reschedule(times, now(), lead) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let unmoved = store::events::load(tx, &[id]).await?.pop();
    let unmoved = unmoved.ok_or_else(|| DbError::inconsistent(format!("{id} is locked and not there")))?;
    let event = Event { schedule: after, ..unmoved };
    store_change(tx, &before, &after, event.scheduled()).await?;
    Ok(Ok(event))
}
