//! The active events: those whose state in Redis can change now, in the order of a round. Others, perhaps a hundred
//! thousand that open later, cost nothing.

use super::COMPARED_AFTER_CLOSING;
use crate::store;
use stampede_db::{Database, DbError};
use stampede_vocab::{EventId, Timestamp};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How long before its opening an event becomes active.
pub(super) const BEFORE_OPENING: Duration = Duration::from_secs(60);

/// The active events, for one worker.
pub(super) struct ActiveEvents {
    db: Database,
    /// The event that was visited last.
    last: Mutex<Option<EventId>>,
}

impl ActiveEvents {
    pub(super) fn new(db: Database) -> Self {
        Self { db, last: Mutex::default() }
    }

    /// Returns the events that are open, open within a minute, or closed within the last hour. They start after the one
    /// that was visited last, so that rounds that are cut short starve no event.
    pub(super) async fn next_round(&self) -> Result<Vec<EventId>, DbError> {
        let now = Timestamp::now();
        let (soon, closing_after) = (now.plus(BEFORE_OPENING), now.minus(COMPARED_AFTER_CLOSING));
        let read = self.db.run("open_events", |mut conn| async move {
            store::stock::open_events(&mut conn, soon, closing_after).await
        });
        let events: Vec<EventId> = read.await?;
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rotated(events, last))
    }

    /// Notes that the round visits this event.
    pub(super) fn visit(&self, event: EventId) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(event);
    }
}

/// Rotates events that are ordered by id, so that those after `last` come first.
fn rotated(mut events: Vec<EventId>, last: Option<EventId>) -> Vec<EventId> {
    let split = events.partition_point(|event| Some(*event) <= last);
    events.rotate_left(split);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn events<const N: usize>(numbers: [u128; N]) -> Vec<EventId> {
        numbers.map(|number| EventId::from_uuid(Uuid::from_u128(number))).into()
    }

    #[test]
    fn a_round_goes_on_where_the_one_before_was_cut() {
        let last = |number| events([number]).pop();
        assert_eq!(rotated(events([1, 2, 3]), None), events([1, 2, 3]));
        assert_eq!(rotated(events([1, 2, 3]), last(1)), events([2, 3, 1]));
        assert_eq!(rotated(events([1, 3, 5]), last(4)), events([5, 1, 3]));
        assert_eq!(rotated(events([1, 2, 3]), last(3)), events([1, 2, 3]));
    }
}
