//! Notes that events were cancelled, and reports how far their orders are.

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
    /// Those of this schema.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Notes cancellations inside the caller's transaction. Their orders are ended afterwards, by a worker.
    pub async fn note(&self, conn: &mut MySqlConnection, cancellations: &[Cancellation]) -> Result<(), DbError> {
        store::cancellations::insert(conn, cancellations, Timestamp::now()).await
    }

    /// Returns how far the orders of a cancelled event are.
    pub async fn progress(&self, event: EventId) -> Result<Progress, Error> {
        let read = self.db.run("event_cancellation", |mut conn| async move {
            store::cancellations::progress(&mut conn, event).await
        });
        read.await?.ok_or(Error::EventNotCancelled(event))
    }
}
