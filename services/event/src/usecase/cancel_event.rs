//! CancelEvent: the end of an event before its time.

use super::{
    Error, FindEvents, ScheduleChanges,
    schedule_changes::{lock_one, store_change},
};
use crate::domain::{Event, OutgoingMessage, Schedule};
use sqlx::MySqlConnection;
use stampede_db::Database;
use stampede_vocab::{EventId, Timestamp};

/// Cancels events. Cheap to clone.
#[derive(Clone)]
pub struct CancelEvent {
    db: Database,
    changes: ScheduleChanges,
    find: FindEvents,
}

impl CancelEvent {
    /// Cancels events of this schema.
    pub fn new(db: Database, changes: ScheduleChanges, find: FindEvents) -> Self {
        Self { db, changes, find }
    }

    /// Cancels the event. A repeat returns it as it is.
    pub async fn run(&self, id: EventId) -> Result<Event, Error> {
        let work = self.db.transact_with("cancel_event", move |conn| Box::pin(async move { cancel(conn, id).await }));
        let schedule = work.await?;
        self.changes.end_committed(&schedule).await;
        self.find.get(id).await
    }
}

async fn cancel(conn: &mut MySqlConnection, id: EventId) -> Result<Schedule, Error> {
    let before = lock_one(conn, id).await?;
    let after = before.cancel(Timestamp::now())?;
    if after != before {
        let message =
            OutgoingMessage::Cancelled { event_id: id, version: after.version, cancel_time: after.updated_at };
        store_change(conn, &before, &after, message).await?;
    }
    Ok(after)
}
