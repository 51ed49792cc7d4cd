//! Batches the questions to Redis: those that come while a call is under way go out together in the next one.
//!
//! One call at a time, in the order of the questions. So an answer counts all that was posted here before, whether or
//! not somebody waited for it.

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
use tokio::time::{Instant, timeout_at};

/// Pause of calls to Redis after it did not answer, so that not every request waits for it.
const PAUSE: Duration = Duration::from_secs(1);

/// A question whose caller hangs up is asked all the same, so nobody is counted less for it.
const BATCHES: BatchConfig =
    BatchConfig { name: "limits", max_batch: gate::MAX_QUESTIONS, max_in_flight: 1, max_queued: 8_192, must_run: true };

/// Sends questions to Redis.
pub struct Queue {
    batcher: Batcher<Asked, Option<Admission>>,
    meters: Arc<Meters>,
}

/// A question, and since when it waits.
struct Asked {
    since: Instant,
    question: Question,
}

/// Makes the calls.
struct Runner {
    redis: Redis,
    /// Longest wait for Redis, that in the queue and for a connection included. By default a little more than the half
    /// second after which a call to a cluster gives up by itself: then the next one goes to whichever server has taken
    /// over.
    longest_wait: Duration,
    paused_until: Mutex<Option<Instant>>,
    meters: Arc<Meters>,
}

impl Queue {
    /// Asks `redis`, from a task of the current runtime, and waits no longer than this.
    pub fn new(redis: Redis, meters: Arc<Meters>, longest_wait: Duration) -> Self {
        let paused_until = Mutex::new(None);
        let runner = Arc::new(Runner { redis, longest_wait, paused_until, meters: Arc::clone(&meters) });
        let batcher = Batcher::new(BATCHES, move |asked| Arc::clone(&runner).run(asked));
        Self { batcher, meters }
    }

    /// Asks, and waits for the answer; `None` if Redis gives none.
    pub async fn ask(&self, question: Question) -> Option<Admission> {
        let answer = self.batcher.call(Asked { since: Instant::now(), question }).await;
        answer.unwrap_or_else(|_| {
            self.meters.unasked(1);
            None
        })
    }

    /// Posts a question without waiting for the answer. It may be lost, like one that [`Self::ask`] gets no answer to.
    pub fn post(&self, question: Question) {
        if self.batcher.tell(Asked { since: Instant::now(), question }).is_err() {
            self.meters.unasked(1);
        }
    }
}

impl Runner {
    /// Asks all of them in one call, unless Redis did not answer a moment ago. None of them waits for longer than
    /// `longest_wait`: each call is over by the deadline of its first question, which is the oldest of all that wait.
    async fn run(self: Arc<Self>, asked: Vec<Asked>) -> Vec<Option<Admission>> {
        let count = asked.len();
        if self.is_paused() {
            self.meters.unasked(count);
            return vec![None; count];
        }
        let deadline = asked.first().map_or_else(Instant::now, |first| first.since) + self.longest_wait;
        let questions = asked.into_iter().map(|asked| asked.question).collect();
        match timeout_at(deadline, gate::ask_limits(&self.redis, questions)).await {
            Ok(answers) => self.read(answers),
            Err(_) => {
                self.pause(&format!("no answer within {:?}", self.longest_wait), count);
                vec![None; count]
            }
        }
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

    /// Pauses the calls for a while, after so many questions without an answer.
    fn pause(&self, cause: &str, unanswered: usize) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        self.meters.unasked(unanswered);
        tracing::warn!(error.cause = cause, "limits cannot be checked; callers are let through");
    }
}
