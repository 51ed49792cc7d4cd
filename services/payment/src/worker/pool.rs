//! Processes a queue in the database: claims as many jobs as there are free permits, and runs them concurrently. If a
//! process is killed, another one claims its jobs when their leases have expired.

use crate::usecase::Permits;
use stampede_db::DbError;
use stampede_service::{Worker, work};
use std::{future::Future, time::Duration};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Most jobs of one claim.
const MAX_CLAIM: usize = 256;
/// Longest wait for more permits after a claim that used all of them: one claim for all that become free meanwhile is
/// cheaper than one for each.
const PERMIT_WAIT: Duration = Duration::from_millis(10);
/// Time-out of one claim: longer than its transaction takes with every retry, so that no claim is committed after its
/// caller has given up.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);

/// A queue of jobs in the database.
pub trait Queue: Clone + Send + Sync + 'static {
    /// A claimed job.
    type Job: Send + 'static;

    /// Claims at most `limit` jobs for this process; the claim is committed when this returns.
    fn claim(&self, limit: u32) -> impl Future<Output = Result<Vec<Self::Job>, DbError>> + Send;

    fn perform(&self, job: Self::Job) -> impl Future<Output = ()> + Send;

    /// Waits for a hint that there are new jobs. Hints may be lost: the queue is polled as well.
    fn woken(&self) -> impl Future<Output = ()> + Send;
}

#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Bounds the jobs under way.
    pub permits: Permits,
    /// Poll interval of an empty queue.
    pub poll_interval: Duration,
}

/// Works until `stop`, then finishes the jobs under way.
///
/// These include jobs that the consumer has begun with permits of this pool: it gets no more permits after the stop,
/// and those that it holds for a batch in its commit are waited for. So taken-over jobs are finished, and jobs without
/// a permit stay queued, for another replica or the next start. If the process is killed before, its jobs are claimed
/// again when their leases have expired.
pub async fn run<Q: Queue>(
    name: &'static str,
    queue: Q,
    config: PoolConfig,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let PoolConfig { permits, poll_interval } = config;
    let pool = Pool { queue, permits: permits.clone(), poll_interval, free: None, has_backlog: false };
    work(name, CLAIM_TIMEOUT, pool, stop).await;
    permits.drain().await;
    Ok(())
}

/// The claiming side of a pool, one claim a round.
struct Pool<Q> {
    queue: Q,
    permits: Permits,
    poll_interval: Duration,
    /// The permits of the next claim.
    free: Option<OwnedSemaphorePermit>,
    /// Whether the last claim used all permits, so that more jobs may be queued.
    has_backlog: bool,
}

impl<Q: Queue> Worker for Pool<Q> {
    type Error = DbError;

    async fn acquire(&mut self) {
        if self.has_backlog {
            self.permits.wait_for(MAX_CLAIM, PERMIT_WAIT).await;
        }
        self.free = Some(self.permits.acquire_up_to(MAX_CLAIM).await);
    }

    async fn round(&mut self) -> Result<Duration, DbError> {
        let free = self.free.take().expect("a round begins after the permits are acquired");
        self.has_backlog = false;
        self.has_backlog = !claim(&self.queue, free).await?;
        Ok(if self.has_backlog { Duration::ZERO } else { self.poll_interval })
    }

    async fn woken(&mut self) {
        self.queue.woken().await;
    }
}

/// Begins a job, which keeps the permit until it is done.
pub fn begin<Q: Queue>(queue: &Q, job: Q::Job, permit: OwnedSemaphorePermit) {
    let queue = queue.clone();
    tokio::spawn(async move {
        queue.perform(job).await;
        drop(permit);
    });
}

/// Claims and begins as many jobs as there are free permits. Returns whether the queue is empty now.
async fn claim<Q: Queue>(queue: &Q, mut free: OwnedSemaphorePermit) -> Result<bool, DbError> {
    let limit = u32::try_from(free.num_permits()).expect("it is at most the largest claim");
    let claimed = queue.claim(limit).await?;
    // The other permits are released when `free` is dropped.
    let is_empty = claimed.len() < free.num_permits();
    for job in claimed {
        let permit = free.split(1).expect("no more is claimed than there are permits");
        begin(queue, job, permit);
    }
    Ok(is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        num::NonZeroUsize,
        sync::{Arc, Mutex},
    };
    use tokio::time::sleep;

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
    async fn what_waits_for_permits_is_claimed_for_many_of_them_at_a_time() {
        let jobs = Jobs { left: Arc::new(Mutex::new((1..=8).cycle().take(64).collect())), claims: Arc::default() };
        let config = PoolConfig {
            permits: Permits::new(NonZeroUsize::new(8).unwrap()),
            poll_interval: Duration::from_secs(3_600),
        };
        let stop = CancellationToken::new();
        let pool = tokio::spawn(run("test", jobs.clone(), config, stop.clone()));
        sleep(Duration::from_secs(1)).await;
        stop.cancel();
        pool.await.unwrap().unwrap();
        assert_eq!(*jobs.claims.lock().unwrap(), [8, 8, 8, 8, 8, 8, 8, 8, 0]);
    }
}
