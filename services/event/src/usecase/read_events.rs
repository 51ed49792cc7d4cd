//! GetEvent, ListEvents and the loads behind WatchEvents: reading changes nothing.

use crate::{
    domain::{Event, Refusal},
    store,
    usecase::{EventError, Events},
};
use stampede_db::DbError;
use stampede_vocab::{EventId, PageSize, Timestamp};
use std::collections::HashMap;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub events: Vec<Event>,
    /// Whether older ones follow.
    pub more: bool,
}

impl Events {
    /// The event of this id.
    pub async fn get(&self, id: EventId) -> Result<Event, EventError> {
        self.load(&[id]).await?.remove(&id).ok_or_else(|| Refusal::NotFound(id).into())
    }

    /// The events older than the one created then with that id; the newest of all for `None`.
    pub async fn list(&self, after: Option<(Timestamp, EventId)>, size: PageSize) -> Result<Page, EventError> {
        let mut conn = self.db.acquire().await?;
        let after = after.map(|(created_at, id)| (created_at, id.uuid()));
        let mut events = store::events::page(&mut conn, after, size.get() + 1).await?;
        let more = events.len() > size.get() as usize;
        events.truncate(size.get() as usize);
        Ok(Page { events, more })
    }

    /// The events of these ids that there are.
    pub async fn load(&self, ids: &[EventId]) -> Result<HashMap<EventId, Event>, DbError> {
        let mut conn = self.db.acquire().await?;
        let events = store::events::load(&mut conn, ids).await?;
        Ok(events.into_iter().map(|event| (event.id(), event)).collect())
    }

    /// Refuses unless there is an event for each of these ids.
    pub async fn require(&self, ids: &[EventId]) -> Result<(), EventError> {
        let found = self.load(ids).await?;
        match ids.iter().find(|id| !found.contains_key(id)) {
            None => Ok(()),
            Some(id) => Err(Refusal::NotFound(*id).into()),
        }
    }
}
