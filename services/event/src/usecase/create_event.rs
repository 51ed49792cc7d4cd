//! CreateEvent: creates an event with its items. A repeat returns the same event.

use super::{Error, ScheduleChanges};
use crate::{
    domain::{Event, NewEvent, Refusal},
    store,
};
use sqlx::MySqlConnection;
use stampede_db::{Conn, Database};
use stampede_vocab::Timestamp;
use std::{sync::Arc, time::Duration};

/// How far in the past a requested opening may be: the time that a request may be in flight. Such an event opens at
/// once.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Creates events. Cheap to clone.
#[derive(Clone)]
pub struct CreateEvent {
    db: Database,
    changes: ScheduleChanges,
}

impl CreateEvent {
    /// Returns the use case on this schema.
    pub fn new(db: Database, changes: ScheduleChanges) -> Self {
        Self { db, changes }
    }

    /// Creates the event. A repeat returns the first one, even if its times have passed by now.
    pub async fn run(&self, new: NewEvent) -> Result<Event, Error> {
        if let Some(event) = self.created_before(&new).await? {
            return Ok(event);
        }
        match self.insert(&new).await {
            Ok(event) => {
                self.changes.times_committed(&event.schedule).await;
                Ok(event)
            }
            // A concurrent call has just stored the same request.
            Err(Error::Db(error)) if error.unique_violation().is_some() => {
                self.created_before(&new).await?.ok_or(Error::Db(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the event of an earlier request with this request id. Fails if that request was a different one.
    async fn created_before(&self, new: &NewEvent) -> Result<Option<Event>, Error> {
        let id = new.event_id();
        let read = |mut conn: Conn| async move {
            match store::events::fingerprint(&mut conn, id).await? {
                None => Ok(None),
                Some(fingerprint) if fingerprint == new.fingerprint => Ok(store::events::find(&mut conn, id).await?),
                Some(_) => Err(Refusal::RequestIdReused.into()),
            }
        };
        self.db.run("created_before", read).await
    }

    async fn insert(&self, new: &NewEvent) -> Result<Event, Error> {
        let new = Arc::new(new.clone());
        let work = self.db.transact_with("create_event", move |conn| {
            let new = new.clone();
            Box::pin(async move { insert_in_time(conn, &new).await })
        });
        work.await
    }
}

/// Inserts the event, unless it would open in the past. That is checked once its row is locked, so that a repeat is
/// never refused while the request that came first is stored: it waits for that one's row.
async fn insert_in_time(conn: &mut MySqlConnection, new: &NewEvent) -> Result<Event, Error> {
    let event = new.event(Timestamp::now());
    store::events::insert(conn, new, &event).await?;
    let earliest = Timestamp::now().minus(IN_FLIGHT);
    new.times().opening_from(earliest, "must not be in the past").map_err(Refusal::from)?;
    store::outbox::append(conn, &[event.scheduled()]).await?;
    Ok(event)
}
