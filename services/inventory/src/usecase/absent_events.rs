//! Finds out why Redis does not have an event: no stock of it was ever staged, it is over and forgotten, or it was lost
//! or is on its way there. The script can't: a key that is missing may have been lost.

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

/// How long an event is not looked for again that was found to be in no way ready. Once it is staged, Redis knows it
/// and nobody asks here.
const REMEMBERED: Duration = Duration::from_secs(1);
/// How long a batch of reservations waits for the look.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(100);
/// Most events remembered; whoever makes up more costs one query a batch.
const MAX_REMEMBERED: usize = 4_096;

/// Why Redis will not have an event soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// No stock of it was ever staged.
    NeverStaged,
    /// It has closed so long ago that nobody compares it any more.
    Over,
}

type Absences = HashMap<EventId, Absence>;

/// Looks for the events that Redis does not have. Clones share what they remember.
#[derive(Clone)]
pub(super) struct AbsentEvents {
    db: Database,
    remembered: Arc<Mutex<HashMap<EventId, (Absence, Instant)>>>,
}

impl AbsentEvents {
    pub(super) fn new(db: Database) -> Self {
        Self { db, remembered: Arc::default() }
    }

    /// Why Redis does not have these events; those are left out that are on their way there. The database is asked
    /// once, about those that were not asked about just now, and for a moment only: what it does not answer by then is
    /// taken for one that is on its way.
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
        let mut absences = self.recall(&events);
        events.retain(|event| !absences.contains_key(event));
        if !events.is_empty() {
            let asked: Vec<EventId> = events.iter().copied().collect();
            let closings: HashMap<EventId, Timestamp> = self
                .db
                .run("closings", |mut conn| async move { store::stock::closings(&mut conn, &asked).await })
                .await?;
            let now = Timestamp::now();
            let absence = |event: EventId| match closings.get(&event) {
                None => Some((event, Absence::NeverStaged)),
                Some(close_time) if close_time.plus(COMPARED_AFTER_CLOSING) <= now => Some((event, Absence::Over)),
                Some(_) => None,
            };
            let found: Absences = events.into_iter().filter_map(absence).collect();
            self.remember(&found);
            absences.extend(found);
        }
        Ok(absences)
    }

    fn recall(&self, events: &HashSet<EventId>) -> Absences {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |event: &EventId| {
            let (absence, since) = remembered.get(event)?;
            (since.elapsed() < REMEMBERED).then_some((*event, *absence))
        };
        events.iter().filter_map(fresh).collect()
    }

    fn remember(&self, absences: &Absences) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() + absences.len() > MAX_REMEMBERED {
            remembered.clear();
        }
        let now = Instant::now();
        remembered.extend(absences.iter().map(|(event, absence)| (*event, (*absence, now))));
    }
}
