//! Telling an event that Redis has lost, or that is on its way there, from one of which no stock was ever staged. The
//! script can't: a key that is missing may have been lost.

use super::Reserved;
use crate::store;
use stampede_db::{Database, DbError};
use stampede_lua::stock::{Cause, Decision, Refusal};
use stampede_vocab::EventId;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long an event that was not found is not looked for again. Once it is staged, Redis knows it and nobody asks here.
const REMEMBERED: Duration = Duration::from_secs(1);
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

    /// The answers to a batch of reservations, of which `events` has the event of each. The database is asked once,
    /// about those events that are not in Redis and were not asked about just now. If it does not answer, they are
    /// NOT_READY.
    pub(super) async fn tell_apart(&self, events: &[EventId], decided: Vec<Decision>) -> Vec<Reserved> {
        let absent = events.iter().zip(&decided).filter(|(_, decision)| is_event_absent(decision));
        let absent: HashSet<EventId> = absent.map(|(event, _)| *event).collect();
        let unknown = self.never_staged(absent).await.unwrap_or_else(|error| {
            tracing::warn!(error.cause = %error, "events that are not in redis could not be looked for");
            HashSet::new()
        });
        let answer = |(event, decision): (&EventId, Decision)| {
            let is_unknown = unknown.contains(event) && is_event_absent(&decision);
            if is_unknown { Reserved::EventNotFound } else { Reserved::Decided(decision) }
        };
        events.iter().zip(decided).map(answer).collect()
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

/// Whether Redis does not have the event at all; one of its items may be missing instead.
fn is_event_absent(decision: &Decision) -> bool {
    matches!(decision, Decision::Refused(Refusal { cause: Cause::NotReady, item_id: None, .. }))
}
