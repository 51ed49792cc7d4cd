//! One queue for each event, so that an event with locked rows does not delay the others.

use stampede_batch::Batcher;
use stampede_vocab::EventId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Idle time after which a queue is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of queues from which on idle ones are dropped.
const PRUNE_THRESHOLD: usize = 256;

/// Queues with the times of their last use.
type Queues<Q, A> = HashMap<EventId, (Batcher<Q, A>, Instant)>;

/// The queues. Clones share them.
pub(super) struct EventQueues<Q, A> {
    make: Arc<dyn Fn() -> Batcher<Q, A> + Send + Sync>,
    queues: Arc<Mutex<Queues<Q, A>>>,
}

impl<Q, A> Clone for EventQueues<Q, A> {
    fn clone(&self) -> Self {
        Self { make: self.make.clone(), queues: self.queues.clone() }
    }
}

impl<Q: Send + 'static, A: Send + 'static> EventQueues<Q, A> {
    /// Returns an empty map, which creates queues by `make`.
    pub(super) fn new(make: impl Fn() -> Batcher<Q, A> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), queues: Arc::default() }
    }

    /// Returns the queue of this event.
    pub(super) fn of(&self, event: EventId) -> Batcher<Q, A> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if queues.len() >= PRUNE_THRESHOLD {
            // A batch in flight ends long before its queue is idle for so long. Calls still queued would be overtaken
            // by those of a new queue.
            queues.retain(|_, (queue, used)| now - *used < IDLE_TIMEOUT || !queue.is_empty());
        }
        let (queue, used) = queues.entry(event).or_insert_with(|| ((self.make)(), now));
        *used = now;
        queue.clone()
    }
}
