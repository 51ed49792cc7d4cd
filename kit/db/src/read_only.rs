//! The moment at which the server was last found to be read-only.
//!
//! An old primary may stay up after a failover, answer every ping and refuse every write. So after one refusal each
//! connection that was opened before it is replaced. The new one may lead to a server that is read-only too, since the
//! failover is under way or somebody has meant it: so there is a pause between two such moments.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Shortest time between two moments: in that time no connection is replaced twice.
const PAUSE: Duration = Duration::from_secs(1);

/// When the server was last found to be read-only; `None` if it never was.
#[derive(Debug, Default)]
pub struct ReadOnlyMoment(Mutex<Option<Instant>>);

impl ReadOnlyMoment {
    /// Records that the server has refused to write, unless it is too soon after the last time.
    pub fn record(&self, now: Instant) {
        let mut last = self.last();
        if last.is_none_or(|last| now >= last + PAUSE) {
            *last = Some(now);
        }
    }

    /// Returns whether a connection that was opened then may lead to the server that refused.
    pub fn affects(&self, opened_at: Instant) -> bool {
        self.last().is_some_and(|last| opened_at <= last)
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_replaced_at_most_once_a_pause() {
        let (moment, refused) = (ReadOnlyMoment::default(), Instant::now());
        assert!(!moment.affects(refused));
        moment.record(refused);
        let replaced = refused + PAUSE / 4;
        assert!(moment.affects(refused) && !moment.affects(replaced));
        // The new one leads to the same server.
        moment.record(refused + PAUSE / 2);
        assert!(!moment.affects(replaced));
        moment.record(refused + PAUSE);
        assert!(moment.affects(replaced) && !moment.affects(refused + 2 * PAUSE));
    }
}
