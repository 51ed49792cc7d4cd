//! A bounded queue of events that were found not to be ready and are to be compared. Once it has overflowed, all events
//! have to be compared, since it is not known which ones are missing.

use stampede_vocab::EventId;
use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(super) struct RecheckQueue {
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: BTreeSet<EventId>,
    /// Whether an event did not fit since the last full pass began.
    has_overflowed: bool,
}

impl RecheckQueue {
    /// Returns a queue for up to `max` events.
    pub(super) fn with_capacity(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    pub(super) fn add(&self, event: EventId) {
        let mut state = self.state();
        if state.events.len() < self.max || state.events.contains(&event) {
            state.events.insert(event);
        } else {
            state.has_overflowed = true;
        }
    }

    /// Drains the queue. Events that were not marked as done go back when the batch is dropped.
    pub(super) fn take(&self) -> RecheckBatch<'_> {
        RecheckBatch { queue: self, pending: std::mem::take(&mut self.state().events) }
    }

    /// Returns whether an event did not fit, so that all have to be compared.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state().has_overflowed
    }

    /// Resets the overflow when a pass over all events begins: it comes to those that did not fit.
    pub(super) fn reset_overflow(&self) {
        self.state().has_overflowed = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of one round.
pub(super) struct RecheckBatch<'a> {
    queue: &'a RecheckQueue,
    pending: BTreeSet<EventId>,
}

impl RecheckBatch<'_> {
    /// Returns up to `size` events that are not done.
    pub(super) fn page(&self, size: usize) -> Vec<EventId> {
        self.pending.iter().take(size).copied().collect()
    }

    /// Marks these events as done.
    pub(super) fn done(&mut self, events: &[EventId]) {
        for event in events {
            self.pending.remove(event);
        }
    }
}

impl Drop for RecheckBatch<'_> {
    fn drop(&mut self) {
        for event in std::mem::take(&mut self.pending) {
            self.queue.add(event);
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

    fn queue(max: usize, numbers: &[u128]) -> RecheckQueue {
        let queue = RecheckQueue::with_capacity(max);
        numbers.iter().for_each(|number| queue.add(event(*number)));
        queue
    }

    #[test]
    fn what_does_not_fit_is_not_forgotten_until_all_are_compared() {
        let queue = queue(2, &[1, 2, 2]);
        assert!(!queue.has_overflowed(), "the same again needs no room");
        queue.add(event(3));
        assert!(queue.has_overflowed());
        let mut batch = queue.take();
        batch.done(&[event(1), event(2)]);
        drop(batch);
        assert!(queue.has_overflowed(), "the third is missing, though there is room by now");
        queue.reset_overflow();
        assert!(!queue.has_overflowed());
    }

    #[test]
    fn what_a_round_does_not_come_to_is_left_to_the_next() {
        let queue = queue(4, &[1, 2, 3]);
        let mut batch = queue.take();
        assert_eq!(batch.page(2), [event(1), event(2)]);
        batch.done(&[event(1), event(2)]);
        assert_eq!(batch.page(2), [event(3)]);
        queue.add(event(1));
        drop(batch);
        assert_eq!(queue.take().page(9), [event(1), event(3)]);
    }

    #[test]
    fn what_is_left_and_does_not_fit_any_more_is_short() {
        let queue = queue(1, &[1]);
        let batch = queue.take();
        queue.add(event(2));
        drop(batch);
        assert!(queue.has_overflowed());
    }
}
