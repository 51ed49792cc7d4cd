//! Reads events: one, a page, or those of given ids.

use super::{Error, readable};
use crate::{
    domain::{Event, Refusal},
    store,
};
use stampede_db::{Database, DbError};
use stampede_service::{Page, Paging};
use stampede_vocab::EventId;
use std::collections::HashMap;

/// Reads events. Cheap to clone.
#[derive(Clone)]
pub struct FindEvents {
    db: Database,
}

impl FindEvents {
    /// Returns the use case on this schema.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    pub async fn get(&self, id: EventId) -> Result<Event, Error> {
        let read = self.db.run("find_event", |mut conn| async move { store::events::find(&mut conn, id).await });
        Ok(read.await?.ok_or(Refusal::NotFound(id))?)
    }

    /// Returns a page of all events, newest first, without those that cannot be read.
    pub async fn list(&self, paging: Paging) -> Result<Page<Event>, Error> {
        let (after, limit) = (paging.after_time(), paging.limit());
        let events = self
            .db
            .run("list_events", |mut conn| async move { store::events::page(&mut conn, after, limit).await })
            .await?;
        // Cut before unreadable events are left out, or a page that has one would look like the last.
        let Page { rows, next_page_token } =
            paging.cut(events, |stored| (stored.created_at.micros(), stored.id.uuid()));
        let rows = rows.into_iter().filter_map(|stored| readable(stored.id, stored.event)).collect();
        Ok(Page { rows, next_page_token })
    }

    /// Returns the events of these ids that exist, without those that cannot be read.
    pub async fn find(&self, ids: &[EventId]) -> Result<HashMap<EventId, Event>, DbError> {
        let events =
            self.db.run("find_events", |mut conn| async move { store::events::load(&mut conn, ids).await }).await?;
        let events = events.into_iter().filter_map(|stored| readable(stored.id, stored.event));
        Ok(events.map(|event| (event.id(), event)).collect())
    }

    /// Returns the versions of the events of these ids that exist.
    pub async fn versions(&self, ids: &[EventId]) -> Result<HashMap<EventId, i64>, DbError> {
        let versions =
            self.db.run("event_versions", |mut conn| async move { store::events::versions(&mut conn, ids).await });
        Ok(versions.await?.into_iter().collect())
    }
}
