//! CreateEvent: a new event with its items, the same one for a repeated request.

use super::{Error, ScheduleChanges};
use crate::{
    domain::{Event, NewEvent, Refusal},
    store,
};
use stampede_db::{Conn, Database};
use stampede_vocab::Timestamp;
use std::{sync::Arc, time::Duration};

/// How far in the past a requested opening may lie: the time that a request may be in flight. Such an event opens at
/// once.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// Creates events. Cheap to clone.
#[derive(Clone)]
pub struct CreateEvent {
    db: Database,
    changes: ScheduleChanges,
}

impl CreateEvent {
    /// Creates events in this schema.
    pub fn new(db: Database, changes: ScheduleChanges) -> Self {
        Self { db, changes }
    }

    /// Creates the event. A repeat returns the one that was created first, even when its times are past by now.
    pub async fn run(&self, new: NewEvent) -> Result<Event, Error> {
        if let Some(event) = self.created_before(&new).await? {
            return Ok(event);
        }
        let now = Timestamp::now();
        let earliest = now.minus(IN_FLIGHT);
        new.times().opening_from(earliest, "must not be in the past").map_err(Refusal::from)?;
        let event = new.event(now);
        match self.insert(&new, &event).await {
            Ok(()) => {
                self.changes.times_committed(&event.schedule).await;
                Ok(event)
            }
            // Somebody else has just stored the same request.
            Err(Error::Db(error)) if error.unique_violation().is_some() => {
                self.created_before(&new).await?.ok_or(Error::Db(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The event of an earlier request with this request's id, which must have been the same request.
    async fn created_before(&self, new: &NewEvent) -> Result<Option<Event>, Error> {
        let id = new.event_id();
        let read = |mut conn: Conn| async move {
            match store::events::fingerprint(&mut conn, id).await? {
                None => Ok(None),
                Some(stored) if stored == new.fingerprint => Ok(store::events::load(&mut conn, &[id]).await?.pop()),
                Some(_) => Err(Refusal::RequestIdReused.into()),
            }
        };
        self.db.run("created_before", read).await
    }

    async fn insert(&self, new: &NewEvent, event: &Event) -> Result<(), Error> {
        let what = Arc::new((new.clone(), event.clone()));
        let work = self.db.transact("create_event", move |conn| {
            let what = what.clone();
            Box::pin(async move {
                let (new, event) = &*what;
                store::events::insert(conn, new, event).await?;
                store::outbox::append(conn, &[event.scheduled()]).await
            })
        });
        Ok(work.await?)
    }
}
