//! Looks up why Redis does not have an event: its stock was never staged, it is over and forgotten, or it was lost or
//! is still being staged. The script can't tell: a missing key may have been lost.

use super::COMPARED_AFTER_CLOSING;
use crate::store;
use stampede_db::{Database, DbError};
use stampede_vocab::{EventId, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Time to live of a cached absence. Once the event is staged, Redis has it and nobody looks here.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// How long a batch of reservations waits for the look-up.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(100);
/// Most cached events. A caller who makes up more costs one query a batch.
const MAX_CACHED: usize = 4_096;

/// Why Redis does not have an event, and will not have it soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// No stock of it was ever staged.
    NeverStaged,
    /// It closed so long ago that it is not compared any more.
    Over,
}

type Absences = HashMap<EventId, Absence>;

/// Looks up events that Redis does not have. Clones share the cache.
#[derive(Clone)]
pub(super) struct AbsentEvents {
    db: Database,
    cache: Arc<Mutex<HashMap<EventId, (Absence, Instant)>>>,
}

impl AbsentEvents {
    pub(super) fn new(db: Database) -> Self {
        Self { db, cache: Arc::default() }
    }

    /// Returns why Redis does not have these events, without those that are being staged. Queries the database once for
    /// events that are not cached. After a failure or time-out they count as being staged.
    pub(super) async fn explain(&self, absent: HashSet<EventId>) -> Absences {
        if absent.is_empty() {
            return Absences::new();
        }
        match timeout(LOOK_UP_TIMEOUT, self.look_up(absent)).await {
            Ok(Ok(absences)) => return absences,
            Ok(Err(error)) => {
                tracing::warn!(error.cause = %error, "events that are not in redis could not be looked for");
            }
            Err(_) => tracing::warn!("events that are not in redis were not found in time"),
        }
        Absences::new()
    }

    async fn look_up(&self, mut events: HashSet<EventId>) -> Result<Absences, DbError> {
        let mut absences = self.cached(&events);
        events.retain(|event| !absences.contains_key(event));
        if !events.is_empty() {
            let ids: Vec<EventId> = events.iter().copied().collect();
            let closings: HashMap<EventId, Timestamp> = self
                .db
                .run("closings", |mut conn| async move { store::stock::closings(&mut conn, &ids).await })
                .await?;
            let now = Timestamp::now();
            let absence = |event: EventId| match closings.get(&event) {
                None => Some((event, Absence::NeverStaged)),
                Some(close_time) if close_time.plus(COMPARED_AFTER_CLOSING) <= now => Some((event, Absence::Over)),
                Some(_) => None,
            };
            let found: Absences = events.into_iter().filter_map(absence).collect();
            self.cache(&found);
            absences.extend(found);
        }
        Ok(absences)
    }

    fn cached(&self, events: &HashSet<EventId>) -> Absences {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |event: &EventId| {
            let (absence, since) = cache.get(event)?;
            (since.elapsed() < CACHE_TTL).then_some((*event, *absence))
        };
        events.iter().filter_map(fresh).collect()
    }

    fn cache(&self, absences: &Absences) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() + absences.len() > MAX_CACHED {
            cache.clear();
        }
        let now = Instant::now();
        cache.extend(absences.iter().map(|(event, absence)| (*event, (*absence, now))));
    }
}
