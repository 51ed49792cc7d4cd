//! CancelEvent: ends an event, before its closing time or after it.

use super::{
    Error, FindEvents, ScheduleChanges,
    schedule_changes::{lock_one, store_change},
};
use crate::{
    client::Inventory,
    domain::{Event, OutgoingMessage, PaidOrders, Schedule, State},
};
use sqlx::MySqlConnection;
use stampede_db::Database;
use stampede_vocab::{EventId, Timestamp};

/// Cancels events. Cheap to clone.
#[derive(Clone)]
pub struct CancelEvent {
    db: Database,
    changes: ScheduleChanges,
    find: FindEvents,
    inventory: Inventory,
}

impl CancelEvent {
    /// Returns the use case on this schema. It notifies `inventory`.
    pub fn new(db: Database, changes: ScheduleChanges, find: FindEvents, inventory: Inventory) -> Self {
        Self { db, changes, find, inventory }
    }

    /// Cancels the event. Returns once inventory sells nothing of it any more. A repeat notifies inventory again and
    /// returns the event; one that requests refunds also has the paid orders refunded.
    pub async fn run(&self, id: EventId, paid_orders: PaidOrders) -> Result<Event, Error> {
        let work = self
            .db
            .transact_with("cancel_event", move |conn| Box::pin(async move { cancel(conn, id, paid_orders).await }));
        let schedule = work.await?;
        self.changes.end_committed(&schedule).await;
        let event = self.find.get(id).await?;
        self.inventory.confirm(&event).await?;
        Ok(event)
    }
}

async fn cancel(conn: &mut MySqlConnection, id: EventId, paid_orders: PaidOrders) -> Result<Schedule, Error> {
    let before = lock_one(conn, id).await?;
    let Some(after) = before.cancel(paid_orders, Timestamp::now()) else { return Ok(before) };
    if let State::Cancelled { cancel_time, paid_orders, .. } = after.state {
        let message = OutgoingMessage::Cancelled { event_id: id, version: after.version, cancel_time, paid_orders };
        store_change(conn, &before, &after, message).await?;
    }
    Ok(after)
}
