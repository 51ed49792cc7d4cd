//! Permits to call the script. Redis runs one script at a time, so excess calls queue: here, for a moment, and not for
//! seconds at the connection pool. An event whose calls are slow, such as one on a cluster master that is down, takes
//! at most six permits; sixteen such events use up those of a cluster.

use stampede_batch::BatchError;
use stampede_vocab::EventId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Most concurrent script calls: the number of connections to one server. Other commands then get a connection within a
/// script or two.
const MAX_CALLS: usize = 8;
/// The same on a cluster, which has more connections: calls of several events may wait for a master that is down.
const MAX_CALLS_ON_CLUSTER: usize = 96;
/// Most concurrent script calls of one event.
const MAX_CALLS_PER_EVENT: usize = 6;
/// Longest wait for a permit. A longer queue is overload.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Number of events from which on those without a call in flight are dropped.
const PRUNE_THRESHOLD: usize = 256;

/// Limits script calls, first come first served. Clones share the permits.
#[derive(Clone)]
pub(super) struct ScriptPermits {
    all: Arc<Semaphore>,
    by_event: Arc<Mutex<HashMap<EventId, Weak<Semaphore>>>>,
}

/// A permit. It is released on drop.
pub(super) struct ScriptPermit {
    _of_event: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl ScriptPermits {
    pub(super) fn new(is_cluster: bool) -> Self {
        let max_calls = if is_cluster { MAX_CALLS_ON_CLUSTER } else { MAX_CALLS };
        Self { all: Arc::new(Semaphore::new(max_calls)), by_event: Arc::default() }
    }

    /// Waits for a permit of this event. Fails with [`BatchError::Overloaded`] if there is none within half a second.
    pub(super) async fn take(&self, event: EventId) -> Result<ScriptPermit, BatchError> {
        let permit = timeout(MAX_WAIT, self.acquire(event)).await;
        permit.map_err(|_| BatchError::Overloaded)?.map_err(|_| BatchError::Closed)
    }

    async fn acquire(&self, event: EventId) -> Result<ScriptPermit, AcquireError> {
        let of_event = self.of(event).acquire_owned().await?;
        Ok(ScriptPermit { _of_event: of_event, _of_all: self.all.clone().acquire_owned().await? })
    }

    fn of(&self, event: EventId) -> Arc<Semaphore> {
        let mut by_event = self.by_event.lock().unwrap_or_else(PoisonError::into_inner);
        if by_event.len() >= PRUNE_THRESHOLD {
            by_event.retain(|_, permits| permits.strong_count() > 0);
        }
        let permits = by_event.entry(event).or_default();
        permits.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(MAX_CALLS_PER_EVENT));
            *permits = Arc::downgrade(&new);
            new
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;
    use uuid::Uuid;

    fn event(number: u128) -> EventId {
        EventId::from_uuid(Uuid::from_u128(number))
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_refused_and_the_next_one_is_not() {
        let permits = ScriptPermits::new(false);
        let mut taken = Vec::new();
        for number in 0..MAX_CALLS {
            taken.push(permits.take(event(number as u128)).await.expect("a permit is free"));
        }
        let started = Instant::now();
        assert_eq!(permits.take(event(99)).await.err(), Some(BatchError::Overloaded));
        assert!(started.elapsed() < 2 * MAX_WAIT, "{:?}", started.elapsed());
        taken.pop();
        assert!(permits.take(event(99)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_event_leaves_turns_to_the_others() {
        let permits = ScriptPermits::new(false);
        let mut taken = Vec::new();
        for _ in 0..MAX_CALLS_PER_EVENT {
            taken.push(permits.take(event(1)).await.expect("a permit is free"));
        }
        assert_eq!(permits.take(event(1)).await.err(), Some(BatchError::Overloaded));
        assert!(permits.take(event(2)).await.is_ok());
        taken.pop();
        assert!(permits.take(event(1)).await.is_ok());
    }
}
