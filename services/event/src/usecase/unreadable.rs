//! Leaves out events that cannot be read, and logs each of them once a minute: sweeps and watches meet them in every
//! round.

use stampede_db::DbError;
use stampede_vocab::EventId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Shortest time between two lines about one event.
const PAUSE: Duration = Duration::from_secs(60);
/// Most events that are remembered. When there are more, all are forgotten and logged anew.
const MAX_KNOWN: usize = 1_000;

static LOGGED: Mutex<Logged> = Mutex::new(Logged(BTreeMap::new()));

/// When the events were logged last.
struct Logged(BTreeMap<EventId, Instant>);

impl Logged {
    /// Returns whether a line about the event is due at `now`, and counts it as written.
    fn is_due(&mut self, id: EventId, now: Instant) -> bool {
        if self.0.get(&id).is_some_and(|last| now < *last + PAUSE) {
            return false;
        }
        if self.0.len() >= MAX_KNOWN {
            self.0.clear();
        }
        self.0.insert(id, now);
        true
    }
}

/// Returns what was read of the event, or logs why it cannot be read, so that it is left out.
pub(super) fn readable<T>(id: EventId, read: Result<T, DbError>) -> Option<T> {
    let log = |error: &DbError| {
        // Nothing under this lock can panic.
        if LOGGED.lock().unwrap_or_else(PoisonError::into_inner).is_due(id, Instant::now()) {
            tracing::error!(event.id = %id, error.cause = %error, "event cannot be read");
        }
    };
    read.inspect_err(log).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn each_event_is_logged_once_a_minute() {
        let [one, other] = [1, 2].map(|n| EventId::from_uuid(Uuid::from_u128(n)));
        let (mut logged, now) = (Logged(BTreeMap::new()), Instant::now());
        assert!(logged.is_due(one, now) && logged.is_due(other, now));
        assert!(!logged.is_due(one, now + PAUSE / 2));
        assert!(logged.is_due(one, now + PAUSE));
    }
}
