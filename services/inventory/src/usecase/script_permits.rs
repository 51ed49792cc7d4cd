//! Turns: permits to call the script. Redis runs one script at a time, so excess calls queue: here, for a moment, and
//! not for seconds at the connection pool. An event whose calls are slow, such as one on a cluster master that is down,
//! takes at most six turns; four such events use up those of a cluster.

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
const MAX_CALLS_ON_CLUSTER: usize = 24;
/// Most concurrent script calls of one event.
const MAX_CALLS_PER_EVENT: usize = 6;
/// Longest wait for a turn. A longer queue is overload.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Number of events from which on those without a call in flight are dropped.
const PRUNE_THRESHOLD: usize = 256;

/// Limits script calls, first come first served. Clones share the turns.
#[derive(Clone)]
pub(super) struct ScriptTurns {
    all: Arc<Semaphore>,
    by_event: Arc<Mutex<HashMap<EventId, Weak<Semaphore>>>>,
}

/// A turn. It is released on drop.
pub(super) struct ScriptTurn {
    _of_event: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl ScriptTurns {
    pub(super) fn new(is_cluster: bool) -> Self {
        let max_calls = if is_cluster { MAX_CALLS_ON_CLUSTER } else { MAX_CALLS };
        Self { all: Arc::new(Semaphore::new(max_calls)), by_event: Arc::default() }
    }

    /// Waits for a turn of this event. Fails with [`BatchError::Overloaded`] if there is none within half a second.
    pub(super) async fn take(&self, event: EventId) -> Result<ScriptTurn, BatchError> {
        let turn = timeout(MAX_WAIT, self.acquire(event)).await;
        turn.map_err(|_| BatchError::Overloaded)?.map_err(|_| BatchError::Closed)
    }

    async fn acquire(&self, event: EventId) -> Result<ScriptTurn, AcquireError> {
        let of_event = self.of(event).acquire_owned().await?;
        Ok(ScriptTurn { _of_event: of_event, _of_all: self.all.clone().acquire_owned().await? })
    }

    fn of(&self, event: EventId) -> Arc<Semaphore> {
        let mut by_event = self.by_event.lock().unwrap_or_else(PoisonError::into_inner);
        if by_event.len() >= PRUNE_THRESHOLD {
            by_event.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = by_event.entry(event).or_default();
        turns.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(MAX_CALLS_PER_EVENT));
            *turns = Arc::downgrade(&new);
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
        let turns = ScriptTurns::new(false);
        let mut taken = Vec::new();
        for number in 0..MAX_CALLS {
            taken.push(turns.take(event(number as u128)).await.expect("a turn is free"));
        }
        let started = Instant::now();
        assert_eq!(turns.take(event(99)).await.err(), Some(BatchError::Overloaded));
        assert!(started.elapsed() < 2 * MAX_WAIT, "{:?}", started.elapsed());
        taken.pop();
        assert!(turns.take(event(99)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_event_leaves_turns_to_the_others() {
        let turns = ScriptTurns::new(false);
        let mut taken = Vec::new();
        for _ in 0..MAX_CALLS_PER_EVENT {
            taken.push(turns.take(event(1)).await.expect("a turn is free"));
        }
        assert_eq!(turns.take(event(1)).await.err(), Some(BatchError::Overloaded));
        assert!(turns.take(event(2)).await.is_ok());
        taken.pop();
        assert!(turns.take(event(1)).await.is_ok());
    }
}
