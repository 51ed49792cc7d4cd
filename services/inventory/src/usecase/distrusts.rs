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

/// An event that was distrusted twice within this time ...
const TWICE_WITHIN: Duration = Duration::from_secs(10);
/// ... is left alone for so long since: longer than a node that is cut off from its cluster takes writes by default.
const PAUSE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Distrusts(Mutex<HashMap<EventId, Last>>);

/// When an event was distrusted last.
#[derive(Debug)]
struct Last {
    at: Instant,
    /// Whether it had been shortly before.
    is_repeated: bool,
}

impl Distrusts {
    /// Returns whether the event is to be left alone.
    pub(super) fn is_paused(&self, event: EventId, now: Instant) -> bool {
        self.last().get(&event).is_some_and(|last| last.is_repeated && now < last.at + PAUSE)
    }

    /// Notes that the event was distrusted.
    pub(super) fn note(&self, event: EventId, now: Instant) {
        let mut events = self.last();
        events.retain(|_, last| now < last.at + PAUSE);
        let is_repeated = events.get(&event).is_some_and(|last| now < last.at + TWICE_WITHIN);
        events.insert(event, Last { at: now, is_repeated });
    }

    fn last(&self) -> MutexGuard<'_, HashMap<EventId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_event_that_is_distrusted_twice_in_a_row_is_left_alone_for_a_while() {
        let (distrusts, began) = (Distrusts::default(), Instant::now());
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
}
