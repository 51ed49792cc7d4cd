//! Calls that queue while one is in flight go out together.
//!
//! A [`Batcher`] turns many single calls into few calls with many: while a batch is in flight,
//! what arrives queues, and goes out as one when a slot is free. There is no timer, so an idle
//! batcher adds no delay, and the busier it is the larger its batches grow.
//!
//! The queue is bounded: what does not fit is refused at once, never kept waiting. A batch runs on
//! its own task, so a caller who goes away neither cancels it nor loses its neighbours' answers.
//!
//! This crate must not know what is batched, and must not retry: what a failure means is the
//! runner's to say, in the answers.
//!
//! ```
//! use stampede_batch::{BatchConfig, Batcher};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let config = BatchConfig { name: "squares", max_batch: 256, max_in_flight: 1, max_queued: 1024 };
//! let squares = Batcher::new(config, async |numbers: Vec<u64>| numbers.iter().map(|n| n * n).collect());
//! let (three, four) = tokio::join!(squares.call(3), squares.call(4));
//! assert_eq!((three, four), (Ok(9), Ok(16)));
//! # });
//! ```

#![warn(missing_docs)]

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc};

use stampede_status::{Problem, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// The bounds of a batcher. Each must be at least 1.
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// What is batched, for the logs.
    pub name: &'static str,
    /// Most calls that go out as one.
    pub max_batch: usize,
    /// Most batches under way at a time. With 1, batches also take effect in order.
    pub max_in_flight: usize,
    /// Most calls that wait; a further one is refused.
    pub max_queued: usize,
}

/// Why a call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The queue is full. The call was not made.
    #[error("too many calls are waiting")]
    Overloaded,
    /// The runner panicked or gave the wrong number of answers. The call may have taken effect.
    #[error("the batch ended without an answer")]
    Closed,
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded => Self::new(Reason::Overloaded, "too many calls are waiting: try again shortly"),
            BatchError::Closed => Self::internal_error(error),
        }
    }
}

/// Gathers calls with a question `Q` into batches, and gives each caller its own answer `A`.
///
/// Clones share one queue. The queue ends when the last clone is dropped.
pub struct Batcher<Q, A> {
    queue: mpsc::Sender<Call<Q, A>>,
}

struct Call<Q, A> {
    question: Q,
    reply: oneshot::Sender<A>,
}

impl<Q, A> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Batcher { queue: self.queue.clone() }
    }
}

impl<Q, A> Batcher<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    /// Starts a batcher on the current tokio runtime. `run` must give one answer for each
    /// question, in their order.
    pub fn new<F, Fut>(config: BatchConfig, run: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let (queue, calls) = mpsc::channel(config.max_queued);
        tokio::spawn(dispatch(config, calls, Arc::new(run)));
        Batcher { queue }
    }

    /// Queues one question and waits for its answer.
    pub async fn call(&self, question: Q) -> Result<A, BatchError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Call { question, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => BatchError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => BatchError::Closed,
        })?;
        answer.await.map_err(|_| BatchError::Closed)
    }
}

/// Waits for a free slot first, and then takes whatever has queued until then: a batch grows while it waits.
async fn dispatch<Q, A, F, Fut>(config: BatchConfig, mut calls: mpsc::Receiver<Call<Q, A>>, run: Arc<F>)
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<A>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(config.max_in_flight));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let mut batch = Vec::new();
        if calls.recv_many(&mut batch, config.max_batch).await == 0 {
            return;
        }
        tokio::spawn(run_batch(config.name, batch, run.clone(), slot));
    }
}

/// Runs one batch. If the runner panics the replies are dropped, which the callers see as `Closed`.
async fn run_batch<Q, A, F, Fut>(name: &'static str, batch: Vec<Call<Q, A>>, run: Arc<F>, _slot: OwnedSemaphorePermit)
where
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Vec<A>>,
{
    let (questions, replies): (Vec<Q>, Vec<_>) = batch.into_iter().map(|call| (call.question, call.reply)).unzip();
    let answers = run(questions).await;
    if answers.len() != replies.len() {
        let (asked, answered) = (replies.len(), answers.len());
        tracing::error!(
            batch.name = name,
            batch.asked = asked,
            batch.answered = answered,
            "a batch runner must give one answer for each question"
        );
        return;
    }
    for (reply, answer) in replies.into_iter().zip(answers) {
        // The receiver is gone if the caller was cancelled.
        drop(reply.send(answer));
    }
}
