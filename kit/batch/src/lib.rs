//! Coalesces calls that queue while one is in flight.
//!
//! A [`Batcher`] coalesces single calls into batches: calls that arrive while a batch is in flight queue, and go out as
//! one when it has ended. An idle batcher adds no delay, and batches grow with the load. A batch that takes longer than
//! a moment does not hold up the next one: that goes out beside it, as long as there is a free slot. So a batch that
//! waits for a lock delays the others by that moment, and batches that end soon are not split in two that each cost as
//! much.
//!
//! The queue is bounded: a call that does not fit is refused at once (back-pressure). A queued call whose caller has
//! gone, or whose deadline has passed, is dropped when the next batch is taken, so that an overloaded service works
//! only for callers that still wait; [`BatchConfig::must_run`] turns that off. Batches run on tasks of the batcher, one
//! for each that may be in flight. So a caller that goes away neither cancels a batch nor loses the answers of the
//! others, and a batch costs no task of its own.
//!
//! [`KeyedBatchers`] are batchers by key, where a key whose batches are slow must not delay the others.
//!
//! This crate must not know the calls, and must not retry: the runner says in its answers what a failure means.
//!
//! ```
//! use stampede_batch::{BatchConfig, Batcher};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let config = BatchConfig { name: "squares", max_batch: 256, max_in_flight: 1, max_queued: 1024, must_run: false };
//! let squares = Batcher::new(config, async |numbers: Vec<u64>| numbers.iter().map(|n| n * n).collect());
//! let (three, four) = tokio::join!(squares.call(3), squares.call(4));
//! assert_eq!((three, four), (Ok(9), Ok(16)));
//! # });
//! ```

#![warn(missing_docs)]

mod keyed;
#[cfg(test)]
mod tests;

pub use keyed::KeyedBatchers;

use futures_util::FutureExt;
use opentelemetry::{KeyValue, global, metrics::Counter};
use stampede_status::{Problem, Reason};
use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// Time from the start of a batch until another may start beside it: longer than a transaction takes most often, and
/// much shorter than a caller would notice.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// The bounds of a batcher, each at least 1, and whether abandoned calls are made.
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Most calls of one batch.
    pub max_batch: usize,
    /// Most batches in flight: with 2 or more, one that is slow does not hold up the others for long. With 1, batches
    /// also take effect in order.
    pub max_in_flight: usize,
    /// Most calls in the queue; a further one is refused.
    pub max_queued: usize,
    /// Whether a queued call is made although its caller has gone or its deadline has passed: for calls with a
    /// necessary effect, such as a release.
    pub must_run: bool,
}

/// Why a call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The queue is full. The call was not made.
    #[error("too many calls are waiting")]
    Overloaded,
    /// The deadline passed while the call was queued. The call was not made.
    #[error("the deadline passed while the call was waiting")]
    TooLate,
    /// The runner panicked or gave the wrong number of answers. The call may have taken effect.
    #[error("the batch ended without an answer")]
    Closed,
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded => Self::new(Reason::Overloaded, "too many calls are waiting: try again shortly"),
            BatchError::TooLate => Self::new(Reason::DeadlineExceeded, "the deadline of the call has passed"),
            BatchError::Closed => Self::internal_error(error),
        }
    }
}

/// Coalesces calls with a question `Q` into batches, and returns each caller its own answer `A`.
///
/// Clones share one queue. The queue ends when the last clone is dropped.
pub struct Batcher<Q, A> {
    queue: mpsc::Sender<Call<Q, A>>,
    /// Clones and calls have one each.
    uses: Arc<()>,
}

struct Call<Q, A> {
    question: Q,
    deadline: Option<Instant>,
    /// `None` if the caller does not wait.
    reply: Option<oneshot::Sender<Result<A, BatchError>>>,
    /// Kept until the call has ended.
    in_use: Arc<()>,
}

impl<Q, A> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Batcher { queue: self.queue.clone(), uses: self.uses.clone() }
    }
}

impl<Q, A> Batcher<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    /// Starts a batcher on the current tokio runtime. `run` must return one answer for each question, in order.
    pub fn new<F, Fut>(config: BatchConfig, run: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let (sender, calls) = mpsc::channel(config.max_queued);
        let dropped = dropped_calls(config.name);
        let queue = Queue { config, calls, youngest: None, dropped };
        let queue = Arc::new(Mutex::new(queue));
        let run = Arc::new(run);
        for _ in 0..config.max_in_flight {
            tokio::spawn(work(queue.clone(), config.name, run.clone()));
        }
        Batcher { queue: sender, uses: Arc::default() }
    }

    /// Returns whether there is another clone, or a call that is queued or in flight.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.uses) > 1
    }

    /// Queues one question and waits for its answer. A caller that is dropped while its question is queued withdraws
    /// it, so a caller that is dropped at its deadline need not pass one.
    pub async fn call(&self, question: Q) -> Result<A, BatchError> {
        self.call_by(question, None).await
    }

    /// Queues one question and waits for its answer. Fails with [`BatchError::TooLate`] if it is still queued at
    /// `deadline`; one that is in flight then is answered.
    pub async fn call_by(&self, question: Q, deadline: Option<Instant>) -> Result<A, BatchError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call { question, deadline, reply: Some(reply), in_use: self.uses.clone() })?;
        answer.await.map_err(|_| BatchError::Closed)?
    }

    /// Queues a question without waiting for its answer. It is asked even if the caller is dropped.
    pub fn tell(&self, question: Q) -> Result<(), BatchError> {
        self.send(Call { question, deadline: None, reply: None, in_use: self.uses.clone() })
    }

    fn send(&self, call: Call<Q, A>) -> Result<(), BatchError> {
        self.queue.try_send(call).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => BatchError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => BatchError::Closed,
        })
    }
}

/// Runs batches until no caller is left. Takes queued calls only once it is free, so that the next batch grows
/// meanwhile. Of several workers one waits for calls, and the others for it.
async fn work<Q, A, F, Fut>(queue: Arc<Mutex<Queue<Q, A>>>, name: &'static str, run: Arc<F>)
where
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Vec<A>>,
{
    loop {
        // The second is dropped when the batch has ended, also by a panic.
        let Some((batch, _in_flight)) = queue.lock().await.take().await else { return };
        // A panic drops the replies, which callers see as `Closed`. The panic hook of the process logs it.
        let _ = AssertUnwindSafe(run_batch(name, batch, &*run)).catch_unwind().await;
    }
}

/// A batch in flight: when it was taken, and its end.
struct Youngest {
    taken_at: Instant,
    ended: oneshot::Receiver<()>,
}

/// The queued calls.
struct Queue<Q, A> {
    config: BatchConfig,
    calls: mpsc::Receiver<Call<Q, A>>,
    /// The batch that was taken last, as long as the next one may have to wait for it.
    youngest: Option<Youngest>,
    dropped: Counter<u64>,
}

impl<Q, A> Queue<Q, A> {
    /// Waits for a call, and takes it with those queued after it, up to the largest batch. Returns them with what is to
    /// be dropped when they are answered, or `None` once no caller is left.
    async fn take(&mut self) -> Option<(Vec<Call<Q, A>>, oneshot::Sender<()>)> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let first = self.calls.recv().await?;
            self.gather().await;
            batch.extend(self.wanted(first));
            while batch.len() < self.config.max_batch
                && let Ok(next) = self.calls.try_recv()
            {
                batch.extend(self.wanted(next));
            }
        }
        let (in_flight, ended) = oneshot::channel();
        self.youngest = Some(Youngest { taken_at: Instant::now(), ended });
        Some((batch, in_flight))
    }

    /// Waits for the end of the batch that was taken last, unless it takes longer than a moment, or the next one is
    /// full. Older ones have had their moment.
    async fn gather(&mut self) {
        if self.calls.len() + 1 < self.config.max_batch
            && let Some(Youngest { taken_at, ended }) = self.youngest.take()
        {
            // Whether it has ended or not, the batches after this one need not wait for it.
            let _ = timeout_at(taken_at + GATHER_TIME, ended).await;
        }
    }

    /// Returns the call if it is still wanted; otherwise fails it for a caller that waits.
    fn wanted(&self, call: Call<Q, A>) -> Option<Call<Q, A>> {
        let is_late = call.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_gone = call.reply.as_ref().is_some_and(oneshot::Sender::is_closed);
        if self.config.must_run || !(is_late || is_gone) {
            return Some(call);
        }
        self.dropped.add(1, &[KeyValue::new("batch", self.config.name)]);
        if let Some(reply) = call.reply {
            // Fails if the caller has gone, which is no error.
            drop(reply.send(Err(BatchError::TooLate)));
        }
        None
    }
}

/// Returns the counter of dropped calls, from the present global meter.
fn dropped_calls(name: &'static str) -> Counter<u64> {
    let dropped = global::meter("stampede.batch")
        .u64_counter("stampede_batch_dropped_calls")
        .with_description("Queued calls that were not made, since their caller had gone or their deadline had passed")
        .build();
    // At 0 from the start: a series that begins with its first count hides that count from a rate.
    dropped.add(0, &[KeyValue::new("batch", name)]);
    dropped
}

/// Runs one batch, and sends each caller its answer.
async fn run_batch<Q, A, F, Fut>(name: &'static str, batch: Vec<Call<Q, A>>, run: &F)
where
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Vec<A>>,
{
    let (questions, replies): (Vec<Q>, Vec<_>) =
        batch.into_iter().map(|call| (call.question, (call.reply, call.in_use))).unzip();
    let answers = run(questions).await;
    if answers.len() != replies.len() {
        let (asked, answered) = (replies.len(), answers.len());
        tracing::error!(
            batch.name = name,
            question.count = asked,
            answer.count = answered,
            "a batch runner must give one answer for each question"
        );
        return;
    }
    for ((reply, _in_use), answer) in replies.into_iter().zip(answers) {
        if let Some(reply) = reply {
            // The receiver is gone if the caller was cancelled.
            drop(reply.send(Ok(answer)));
        }
    }
}
