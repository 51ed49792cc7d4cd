//! When each event was distrusted, so that it is left alone if that happens again and again. No I/O.
//!
//! Two masters of Redis that both take writes, each asked by other replicas of this service, give places of arrival for
//! one ledger: each rebuild of the one raises its places beyond the other's, which then seems to be rolled back. While
//! the one is left alone the ledger refuses its orders, and the other sells.

use stampede_vocab::EventId;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// An event that was distrusted twice within this time, or so many rounds of the reconciler if that is longer ...
const TWICE_WITHIN: Duration = Duration::from_secs(10);
const TWICE_WITHIN_ROUNDS: u32 = 5;
/// ... is left alone for so long since, or for so many rounds: longer than a node that is cut off from its cluster
/// takes writes by default.
const PAUSE: Duration = Duration::from_secs(20);
const PAUSE_ROUNDS: u32 = 2;

#[derive(Debug)]
pub(super) struct Distrusts {
    twice_within: Duration,
    pause: Duration,
    last: Mutex<HashMap<EventId, Last>>,
}

/// When an event was distrusted last.
#[derive(Debug)]
struct Last {
    at: Instant,
    /// Whether it had been shortly before.
    is_repeated: bool,
}

impl Distrusts {
    /// Returns the memory of a reconciler that makes a round each `interval`: it may take one to find an event and some
    /// to rebuild it.
    pub(super) fn with_rounds_each(interval: Duration) -> Self {
        let twice_within = TWICE_WITHIN.max(interval * TWICE_WITHIN_ROUNDS);
        Self { twice_within, pause: PAUSE.max(interval * PAUSE_ROUNDS), last: Mutex::default() }
    }

    /// Returns whether the event is to be left alone.
    pub(super) fn is_paused(&self, event: EventId, now: Instant) -> bool {
        self.last().get(&event).is_some_and(|last| last.is_repeated && now < last.at + self.pause)
    }

    /// Notes that the event was distrusted.
    pub(super) fn note(&self, event: EventId, now: Instant) {
        let mut events = self.last();
        events.retain(|_, last| now < last.at + self.pause.max(self.twice_within));
        let is_repeated = events.get(&event).is_some_and(|last| now < last.at + self.twice_within);
        events.insert(event, Last { at: now, is_repeated });
    }

    fn last(&self) -> MutexGuard<'_, HashMap<EventId, Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_event_that_is_distrusted_twice_in_a_row_is_left_alone_for_a_while() {
        let (distrusts, began) = (Distrusts::with_rounds_each(Duration::from_secs(2)), Instant::now());
        let event = |number| EventId::from_uuid(Uuid::from_u128(number));
        let at = |seconds| began + Duration::from_secs(seconds);
        distrusts.note(event(1), at(0));
        assert!(!distrusts.is_paused(event(1), at(1)), "once is no reason");
        distrusts.note(event(1), at(9));
        assert!(distrusts.is_paused(event(1), at(10)) && distrusts.is_paused(event(1), at(28)));
        assert!(!distrusts.is_paused(event(2), at(10)), "nor is another event");
        assert!(!distrusts.is_paused(event(1), at(29)));
        distrusts.note(event(1), at(29));
        assert!(!distrusts.is_paused(event(1), at(30)), "it begins anew");
        distrusts.note(event(1), at(39));
        assert!(!distrusts.is_paused(event(1), at(39)), "not so soon after the one before");
    }

    #[test]
    fn rounds_that_are_rare_find_it_less_often_in_the_same_time() {
        let (distrusts, began) = (Distrusts::with_rounds_each(Duration::from_secs(20)), Instant::now());
        let event = EventId::from_uuid(Uuid::from_u128(1));
        let at = |seconds| began + Duration::from_secs(seconds);
        distrusts.note(event, at(0));
        distrusts.note(event, at(99));
        assert!(distrusts.is_paused(event, at(138)) && !distrusts.is_paused(event, at(139)));
    }
}
