//! Turns at the script. Redis runs one script at a time, so calls that come faster than it takes them queue somewhere:
//! here, for a moment, and not for seconds at the pool of connections. An event whose calls are slow, as those for a
//! master of a cluster that is away, takes six turns at most; four such events use up those of a cluster.

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

/// Calls of the script under way at a time: as many as there are connections to one server. Who asks Redis for
/// something else then finds a connection within a script or two.
const AT_A_TIME: usize = 8;
/// The same on a cluster, which has more connections: those of several events may wait for a master that is away.
const AT_A_TIME_ON_CLUSTER: usize = 24;
/// Those of one event.
const OF_ONE_EVENT: usize = 6;
/// Longest wait for a turn. Who waits longer is one of more than can be answered.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Events from which on those without a call under way are forgotten.
const MANY: usize = 256;

/// Lets calls of the script through in the order in which they came. Clones share the turns.
#[derive(Clone)]
pub(super) struct ScriptTurns {
    all: Arc<Semaphore>,
    by_event: Arc<Mutex<HashMap<EventId, Weak<Semaphore>>>>,
}

/// A turn. It lasts until this is dropped.
pub(super) struct ScriptTurn {
    _of_event: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl ScriptTurns {
    pub(super) fn new(is_cluster: bool) -> Self {
        let at_a_time = if is_cluster { AT_A_TIME_ON_CLUSTER } else { AT_A_TIME };
        Self { all: Arc::new(Semaphore::new(at_a_time)), by_event: Arc::default() }
    }

    /// Waits for a turn of this event. Fails as [`BatchError::Overloaded`] if there is none within half a second.
    pub(super) async fn take(&self, event: EventId) -> Result<ScriptTurn, BatchError> {
        let turn = timeout(LONGEST_WAIT, self.acquire(event)).await;
        turn.map_err(|_| BatchError::Overloaded)?.map_err(|_| BatchError::Closed)
    }

    async fn acquire(&self, event: EventId) -> Result<ScriptTurn, AcquireError> {
        let of_event = self.of(event).acquire_owned().await?;
        Ok(ScriptTurn { _of_event: of_event, _of_all: self.all.clone().acquire_owned().await? })
    }

    fn of(&self, event: EventId) -> Arc<Semaphore> {
        let mut by_event = self.by_event.lock().unwrap_or_else(PoisonError::into_inner);
        if by_event.len() >= MANY {
            by_event.retain(|_, turns| turns.strong_count() > 0);
        }
        let turns = by_event.entry(event).or_default();
        turns.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(OF_ONE_EVENT));
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
        for number in 0..AT_A_TIME {
            taken.push(turns.take(event(number as u128)).await.expect("a turn is free"));
        }
        let started = Instant::now();
        assert_eq!(turns.take(event(99)).await.err(), Some(BatchError::Overloaded));
        assert!(started.elapsed() < 2 * LONGEST_WAIT, "{:?}", started.elapsed());
        taken.pop();
        assert!(turns.take(event(99)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_event_leaves_turns_to_the_others() {
        let turns = ScriptTurns::new(false);
        let mut taken = Vec::new();
        for _ in 0..OF_ONE_EVENT {
            taken.push(turns.take(event(1)).await.expect("a turn is free"));
        }
        assert_eq!(turns.take(event(1)).await.err(), Some(BatchError::Overloaded));
        assert!(turns.take(event(2)).await.is_ok());
        taken.pop();
        assert!(turns.take(event(1)).await.is_ok());
    }
}
