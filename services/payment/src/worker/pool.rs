//! Works off a queue that lies in the database: claims as many jobs as there are free hands, and does them side by
//! side. A job whose process dies is claimed again by somebody else when its lease has ended.

use stampede_chassis::backoff;
use stampede_db::DbError;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most jobs of one claim.
const MAX_CLAIM: usize = 256;

/// A queue of jobs in the database.
pub trait Queue: Clone + Send + Sync + 'static {
    /// A claimed job.
    type Job: Send + 'static;

    /// Takes at most `limit` jobs for this process; the claim is committed when this returns.
    fn claim(&self, limit: u32) -> impl Future<Output = Result<Vec<Self::Job>, DbError>> + Send;

    /// Does one job.
    fn perform(&self, job: Self::Job) -> impl Future<Output = ()> + Send;

    /// Waits for a hint that there are new jobs. Hints may be missing: the queue is polled as well.
    fn woken(&self) -> impl Future<Output = ()> + Send;
}

/// How a pool works.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Jobs that are done at a time.
    pub max_in_flight: usize,
    /// Longest wait between two looks into an empty queue.
    pub poll: Duration,
}

/// Works until `stop`, then finishes the jobs under way.
pub async fn run<Q: Queue>(queue: Q, pace: Pace, stop: CancellationToken) -> anyhow::Result<()> {
    let hands = Arc::new(Semaphore::new(pace.max_in_flight));
    let jobs = TaskTracker::new();
    let mut failures = 0;
    while let Some(free) = stop.run_until_cancelled(free_hands(&hands)).await {
        let wait = match claim(&queue, free, &jobs).await {
            Ok(all_taken) => {
                failures = 0;
                if all_taken { Wait::ForHint } else { Wait::Not }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!("a claim of jobs failed and will be tried again: {error}");
                Wait::Backoff(backoff(failures))
            }
        };
        stop.run_until_cancelled(wait.over(&queue, pace.poll)).await;
    }
    jobs.close();
    jobs.wait().await;
    Ok(())
}

/// What to wait for before the next claim.
enum Wait {
    Not,
    ForHint,
    Backoff(Duration),
}

impl Wait {
    async fn over<Q: Queue>(self, queue: &Q, poll: Duration) {
        match self {
            Self::Not => {}
            Self::ForHint => {
                tokio::select! {
                    () = queue.woken() => {}
                    () = sleep(poll) => {}
                }
            }
            Self::Backoff(pause) => sleep(pause).await,
        }
    }
}

/// Waits for a free hand and takes all that are free.
async fn free_hands(hands: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let mut free = hands.clone().acquire_owned().await.expect("the semaphore is never closed");
    let others = hands.available_permits().min(MAX_CLAIM - 1);
    let others = u32::try_from(others).expect("it is at most the largest claim");
    if let Ok(others) = hands.clone().try_acquire_many_owned(others) {
        free.merge(others);
    }
    free
}

/// Claims and begins as many jobs as there are free hands; true if the queue had no more than that.
async fn claim<Q: Queue>(queue: &Q, mut free: OwnedSemaphorePermit, jobs: &TaskTracker) -> Result<bool, DbError> {
    let limit = u32::try_from(free.num_permits()).expect("it is at most the largest claim");
    let claimed = queue.claim(limit).await?;
    let all_taken = claimed.len() < free.num_permits();
    for job in claimed {
        let hand = free.split(1).expect("no more is claimed than there are hands");
        let queue = queue.clone();
        jobs.spawn(async move {
            queue.perform(job).await;
            drop(hand);
        });
    }
    Ok(all_taken)
}
