//! Batches requests to Redis: those that arrive while a call is in flight are sent together in the next one.
//!
//! One call at a time, in the order of the requests. So an answer counts all that was posted here before, whether or
//! not its caller waited.

use super::meters::Meters;
use stampede_batch::{BatchConfig, Batcher};
use stampede_lua::{
    Redis, RedisError,
    gate::{self, Admission, Question},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Circuit breaker: pause of calls to Redis after a failure, so that not every request waits for it.
const PAUSE: Duration = Duration::from_secs(1);

/// A request is sent even if its caller hangs up, so that it is counted.
const BATCHES: BatchConfig =
    BatchConfig { name: "limits", max_batch: gate::MAX_QUESTIONS, max_in_flight: 1, max_queued: 8_192, must_run: true };

/// Sends requests to Redis.
pub struct Queue {
    batcher: Batcher<Queued, Option<Admission>>,
    meters: Arc<Meters>,
}

/// A queued request, and its arrival.
struct Queued {
    since: Instant,
    question: Question,
}

/// Sends the batches.
struct Runner {
    redis: Redis,
    /// Longest wait for Redis, in the queue and for a connection included.
    longest_wait: Duration,
    paused_until: Mutex<Option<Instant>>,
    meters: Arc<Meters>,
}

impl Queue {
    /// Sends to `redis`, from a task of the current runtime, with this timeout.
    pub fn new(redis: Redis, meters: Arc<Meters>, longest_wait: Duration) -> Self {
        let paused_until = Mutex::new(None);
        let runner = Arc::new(Runner { redis, longest_wait, paused_until, meters: Arc::clone(&meters) });
        let batcher = Batcher::new(BATCHES, move |queued| Arc::clone(&runner).run(queued));
        Self { batcher, meters }
    }

    /// Sends a request and waits for its answer; `None` if Redis gives none.
    pub async fn ask(&self, question: Question) -> Option<Admission> {
        let answer = self.batcher.call(Queued { since: Instant::now(), question }).await;
        answer.unwrap_or_else(|_| {
            self.meters.unchecked(1);
            None
        })
    }

    /// Queues a request without waiting for its answer. It may be lost, like one that [`Self::ask`] gets no answer to.
    pub fn post(&self, question: Question) {
        if self.batcher.tell(Queued { since: Instant::now(), question }).is_err() {
            self.meters.unchecked(1);
        }
    }
}

impl Runner {
    /// Sends a batch in one call, unless the circuit is open. No request waits longer than `longest_wait`: the timeout
    /// of a call runs from its oldest request. The call ends by itself, so that on a cluster the answers that have come
    /// by then count, and the next one goes over fresh connections.
    async fn run(self: Arc<Self>, queued: Vec<Queued>) -> Vec<Option<Admission>> {
        let count = queued.len();
        if self.is_paused() {
            self.meters.unchecked(count);
            return vec![None; count];
        }
        let deadline = queued.first().map_or_else(Instant::now, |first| first.since) + self.longest_wait;
        let questions = queued.into_iter().map(|queued| queued.question).collect();
        let redis = self.redis.with_timeout(deadline.saturating_duration_since(Instant::now()));
        self.read(gate::ask_limits(&redis, questions).await)
    }

    fn read(&self, answers: Vec<Result<Admission, RedisError>>) -> Vec<Option<Admission>> {
        let mut failed = answers.iter().filter_map(|answer| answer.as_ref().err());
        if let Some(first) = failed.next() {
            self.pause(&first.to_string(), 1 + failed.count());
        }
        answers.into_iter().map(Result::ok).collect()
    }

    fn is_paused(&self) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Opens the circuit for a while, after so many requests without an answer.
    fn pause(&self, cause: &str, unanswered: usize) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        self.meters.unchecked(unanswered);
        tracing::warn!(error.cause = cause, "limits cannot be checked; callers are let through");
    }
}
