//! The events that somebody found not to be ready, until they are looked at. So many are remembered; when there are
//! more, all events are to be compared, since nobody knows which ones are missing.

use stampede_vocab::EventId;
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(super) struct AskedEvents {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: BTreeSet<EventId>,
    /// Whether one did not fit since all were compared.
    is_short: bool,
}

impl AskedEvents {
    /// Remembers `max` events.
    pub(super) fn remembering(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    pub(super) fn add(&self, event: EventId) {
        let mut state = self.state();
        if state.events.len() < self.max || state.events.contains(&event) {
            state.events.insert(event);
        } else {
            state.is_short = true;
        }
    }

    /// Takes all events. Those that are not looked at by the time that the answer is dropped are remembered again.
    pub(super) fn take(&self) -> TakenEvents<'_> {
        TakenEvents { asked: self, left: std::mem::take(&mut self.state().events) }
    }

    /// Whether an event was not remembered, so that all are to be compared.
    pub(super) fn is_short(&self) -> bool {
        self.state().is_short
    }

    /// Notes that a pass over all events has begun: it comes to those that were not remembered.
    pub(super) fn all_begun(&self) {
        self.state().is_short = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that one round looks at.
pub(super) struct TakenEvents<'a> {
    asked: &'a AskedEvents,
    left: BTreeSet<EventId>,
}

impl TakenEvents<'_> {
    /// The next events, at most so many; none at the end.
    pub(super) fn page(&self, size: usize) -> Vec<EventId> {
        self.left.iter().take(size).copied().collect()
    }

    /// Notes that these were looked at.
    pub(super) fn looked_at(&mut self, events: &[EventId]) {
        for event in events {
            self.left.remove(event);
        }
    }
}

impl Drop for TakenEvents<'_> {
    fn drop(&mut self) {
        for event in std::mem::take(&mut self.left) {
            self.asked.add(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn event(number: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(number))
    }

    fn asked(max: usize, numbers: &[u128]) -> AskedEvents {
        let asked = AskedEvents::remembering(max);
        numbers.iter().for_each(|number| asked.add(event(*number)));
        asked
    }

    #[test]
    fn what_does_not_fit_is_not_forgotten_until_all_are_compared() {
        let asked = asked(2, &[1, 2, 2]);
        assert!(!asked.is_short(), "the same again needs no room");
        asked.add(event(3));
        assert!(asked.is_short());
        let mut taken = asked.take();
        taken.looked_at(&[event(1), event(2)]);
        drop(taken);
        assert!(asked.is_short(), "the third is missing, though there is room by now");
        asked.all_begun();
        assert!(!asked.is_short());
    }

    #[test]
    fn what_a_round_does_not_come_to_is_left_to_the_next() {
        let asked = asked(4, &[1, 2, 3]);
        let mut taken = asked.take();
        assert_eq!(taken.page(2), [event(1), event(2)]);
        taken.looked_at(&[event(1), event(2)]);
        assert_eq!(taken.page(2), [event(3)]);
        asked.add(event(1));
        drop(taken);
        assert_eq!(asked.take().page(9), [event(1), event(3)]);
    }

    #[test]
    fn what_is_left_and_does_not_fit_any_more_is_short() {
        let asked = asked(1, &[1]);
        let taken = asked.take();
        asked.add(event(2));
        drop(taken);
        assert!(asked.is_short());
    }
}
