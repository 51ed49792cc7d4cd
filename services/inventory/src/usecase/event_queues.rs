//! A queue for each event, so that one whose rows are locked keeps none of the others waiting.

use stampede_batch::Batcher;
use stampede_vocab::EventId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a queue is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Queues from which on those that nobody uses are looked for.
const MANY: usize = 256;

/// A queue and when it was last asked for.
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
    /// Queues as `make` makes them.
    pub(super) fn new(make: impl Fn() -> Batcher<Q, A> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), queues: Arc::default() }
    }

    /// The queue of this event.
    pub(super) fn of(&self, event: EventId) -> Batcher<Q, A> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if queues.len() >= MANY {
            // A batch that is under way ends long before its queue is forgotten; calls that are queued would be
            // overtaken.
            queues.retain(|_, (queue, used)| now - *used < KEPT_FOR || !queue.is_empty());
        }
        let (queue, used) = queues.entry(event).or_insert_with(|| ((self.make)(), now));
        *used = now;
        queue.clone()
    }
}
