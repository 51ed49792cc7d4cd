//! Works off a queue that lies in the database: claims as many jobs as there are free hands, and does them side by
//! side. A job whose process dies is claimed again by somebody else when its lease has ended.

use crate::usecase::Hands;
use stampede_chassis::backoff;
use stampede_db::DbError;
use std::{future::Future, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tokio_util::sync::CancellationToken;

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
#[derive(Debug, Clone)]
pub struct Pace {
    /// Who does the jobs, one each at a time.
    pub hands: Hands,
    /// Longest wait between two looks into an empty queue.
    pub poll: Duration,
}

/// Works until `stop`, then finishes the jobs under way.
///
/// Among those are jobs that the consumer has begun with hands of this pool. From the stop on no hand is free for it
/// any more, and hands that it has kept for a batch that is being committed are waited for. So what it has taken over
/// is performed, and what it finds no hand for stays queued, for another replica or the next start. Should the process
/// be cut short all the same, what was taken over and not done is found when its lease has ended.
pub async fn run<Q: Queue>(queue: Q, pace: Pace, stop: CancellationToken) -> anyhow::Result<()> {
    let Pace { hands, poll } = pace;
    let mut failures = 0;
    while let Some(free) = stop.run_until_cancelled(hands.take(MAX_CLAIM)).await {
        let wait = match claim(&queue, free).await {
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
        stop.run_until_cancelled(wait.over(&queue, poll)).await;
    }
    hands.rest().await;
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

/// Begins a job, which keeps the hand until it is done.
pub fn begin<Q: Queue>(queue: &Q, job: Q::Job, hand: OwnedSemaphorePermit) {
    let queue = queue.clone();
    tokio::spawn(async move {
        queue.perform(job).await;
        drop(hand);
    });
}

/// Claims and begins as many jobs as there are free hands; true if the queue had no more than that.
async fn claim<Q: Queue>(queue: &Q, mut free: OwnedSemaphorePermit) -> Result<bool, DbError> {
    let limit = u32::try_from(free.num_permits()).expect("it is at most the largest claim");
    let claimed = queue.claim(limit).await?;
    let all_taken = claimed.len() < free.num_permits();
    for job in claimed {
        let hand = free.split(1).expect("no more is claimed than there are hands");
        begin(queue, job, hand);
    }
    Ok(all_taken)
}
