//! Telling an event that Redis has lost, or that is on its way there, from one of which no stock was ever staged. The
//! script can't: a key that is missing may have been lost.

use crate::store;
use stampede_db::{Database, DbError};
use stampede_vocab::EventId;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long an event that was not found is not looked for again. Once it is staged, Redis knows it and nobody asks here.
const REMEMBERED: Duration = Duration::from_secs(1);
/// How long a batch of reservations waits for the look.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(100);
/// Most events remembered; whoever makes up more costs one query a batch.
const MAX_REMEMBERED: usize = 4_096;

/// Looks for the events that Redis does not have. Clones share what they remember.
#[derive(Clone)]
pub(super) struct UnknownEvents {
    db: Database,
    missing: Arc<Mutex<HashMap<EventId, Instant>>>,
}

impl UnknownEvents {
    pub(super) fn new(db: Database) -> Self {
        Self { db, missing: Arc::default() }
    }

    /// Those of these events, which Redis does not have, of which no stock was ever staged. The database is asked once,
    /// about those that were not asked about just now, and for a moment only: what it does not answer by then is taken for
    /// one that is on its way.
    pub(super) async fn among(&self, absent: HashSet<EventId>) -> HashSet<EventId> {
        if absent.is_empty() {
            return absent;
        }
        match timeout(LOOK_UP_TIMEOUT, self.never_staged(absent)).await {
            Ok(Ok(unknown)) => return unknown,
            Ok(Err(error)) => {
                tracing::warn!(error.cause = %error, "events that are not in redis could not be looked for");
            }
            Err(_) => tracing::warn!("events that are not in redis were not found in time"),
        }
        HashSet::new()
    }

    /// Those of these events of which no stock was ever staged.
    async fn never_staged(&self, mut events: HashSet<EventId>) -> Result<HashSet<EventId>, DbError> {
        let mut unknown = self.remembered(&events);
        events.retain(|event| !unknown.contains(event));
        if !events.is_empty() {
            let asked: Vec<EventId> = events.iter().copied().collect();
            let known: HashSet<EventId> = self
                .db
                .run("known_events", |mut conn| async move { store::stock::known_events(&mut conn, &asked).await })
                .await?;
            events.retain(|event| !known.contains(event));
            self.remember(&events);
            unknown.extend(events);
        }
        Ok(unknown)
    }

    fn remembered(&self, events: &HashSet<EventId>) -> HashSet<EventId> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |event: &&EventId| missing.get(event).is_some_and(|since| since.elapsed() < REMEMBERED);
        events.iter().filter(is_fresh).copied().collect()
    }

    fn remember(&self, events: &HashSet<EventId>) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() + events.len() > MAX_REMEMBERED {
            missing.clear();
        }
        let now = Instant::now();
        missing.extend(events.iter().map(|event| (*event, now)));
    }
}
