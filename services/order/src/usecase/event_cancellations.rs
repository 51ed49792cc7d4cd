//! Stores the cancellations of events, and reports the progress of ending their orders.

use super::Error;
use crate::{
    domain::{Cancellation, Progress},
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError};
use stampede_vocab::{EventId, Timestamp};

/// The cancellations of events. Cheap to clone.
#[derive(Clone)]
pub struct EventCancellations {
    db: Database,
}

impl EventCancellations {
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Stores cancellations inside the caller's transaction. A worker ends the orders afterwards.
    pub async fn note(&self, conn: &mut MySqlConnection, cancellations: &[Cancellation]) -> Result<(), DbError> {
        store::cancellations::insert(conn, cancellations, Timestamp::now()).await
    }

    /// Returns the progress of ending the orders of a cancelled event.
    pub async fn progress(&self, event: EventId) -> Result<Progress, Error> {
        let read = self.db.run("event_cancellation", |mut conn| async move {
            store::cancellations::progress(&mut conn, event).await
        });
        read.await?.ok_or(Error::EventNotCancelled(event))
    }
}
