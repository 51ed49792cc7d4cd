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
/// Longest wait for more hands after a claim that they did not suffice for: the next one is for all that have become free
/// by then, not for the first of them.
const HANDS_GATHER: Duration = Duration::from_millis(10);

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
                if all_taken { Wait::ForHint } else { Wait::ForHands }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!("a claim of jobs failed and will be tried again: {error}");
                Wait::For(backoff(failures))
            }
        };
        stop.run_until_cancelled(wait.over(&queue, &hands, poll)).await;
    }
    hands.rest().await;
    Ok(())
}

/// What to wait for before the next claim.
enum Wait {
    ForHint,
    ForHands,
    For(Duration),
}

impl Wait {
    async fn over<Q: Queue>(self, queue: &Q, hands: &Hands, poll: Duration) {
        match self {
            Self::ForHint => {
                tokio::select! {
                    () = queue.woken() => {}
                    () = sleep(poll) => {}
                }
            }
            Self::ForHands => hands.gather(MAX_CLAIM, HANDS_GATHER).await,
            Self::For(pause) => sleep(pause).await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        num::NonZeroUsize,
        sync::{Arc, Mutex},
    };

    /// A queue of jobs, each of which takes so many milliseconds, and how many were claimed at a time.
    #[derive(Clone)]
    struct Jobs {
        left: Arc<Mutex<Vec<u64>>>,
        claims: Arc<Mutex<Vec<usize>>>,
    }

    impl Queue for Jobs {
        type Job = u64;

        async fn claim(&self, limit: u32) -> Result<Vec<u64>, DbError> {
            let mut left = self.left.lock().unwrap();
            let rest = left.len().saturating_sub(limit as usize);
            let claimed = left.split_off(rest);
            self.claims.lock().unwrap().push(claimed.len());
            Ok(claimed)
        }

        async fn perform(&self, millis: u64) {
            sleep(Duration::from_millis(millis)).await;
        }

        fn woken(&self) -> impl Future<Output = ()> + Send {
            pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_hands_is_claimed_for_many_of_them_at_a_time() {
        let jobs = Jobs { left: Arc::new(Mutex::new((1..=8).cycle().take(64).collect())), claims: Arc::default() };
        let pace = Pace { hands: Hands::new(NonZeroUsize::new(8).unwrap()), poll: Duration::from_secs(3_600) };
        let stop = CancellationToken::new();
        let pool = tokio::spawn(run(jobs.clone(), pace, stop.clone()));
        sleep(Duration::from_secs(1)).await;
        stop.cancel();
        pool.await.unwrap().unwrap();
        assert_eq!(*jobs.claims.lock().unwrap(), [8, 8, 8, 8, 8, 8, 8, 8, 0]);
    }
}
