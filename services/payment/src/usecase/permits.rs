//! The permits of a pool, which bound the jobs in flight. A job begins only with a permit, whether the pool has claimed
//! it from the queue or the consumer has taken it over.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A fixed number of permits. Clones share them. A permit that was taken is free again when it is dropped.
#[derive(Debug, Clone)]
pub struct Permits {
    free: Arc<Semaphore>,
    all: u32,
}

impl Permits {
    /// Returns so many permits, all of them free.
    pub fn new(count: NonZeroUsize) -> Self {
        let all = u32::try_from(count.get()).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for a free permit and takes all that are free, at most `max`. Waiters here come before
    /// [`Permits::try_acquire_up_to`], so that new jobs do not starve those that are queued.
    pub async fn acquire_up_to(&self, max: usize) -> OwnedSemaphorePermit {
        let mut taken = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        if let Some(others) = self.try_acquire_up_to(max.saturating_sub(1)) {
            taken.merge(others);
        }
        taken
    }

    /// Waits until `max` permits are free at once, or all of them if there are fewer, but no longer than `longest`.
    /// Permits that become free meanwhile are not available to [`Permits::try_acquire_up_to`].
    pub async fn wait_for(&self, max: usize, longest: Duration) {
        let count = u32::try_from(max).unwrap_or(u32::MAX).min(self.all);
        // The semaphore is fair: while this waits for many, nobody takes the few that become free. They are released
        // here at once, in time or not, and taken by the caller as it needs them.
        drop(timeout(longest, self.free.acquire_many(count)).await);
    }

    /// Takes all that are free at this moment, at most `max`; `None` if there is none, or a concurrent call took them.
    pub fn try_acquire_up_to(&self, max: usize) -> Option<OwnedSemaphorePermit> {
        let count = self.free.available_permits().min(max);
        let count = u32::try_from(count).expect("there are no more permits than that");
        self.free.clone().try_acquire_many_owned(count).ok().filter(|taken| taken.num_permits() > 0)
    }

    /// Waits until every job is done, and then closes the pool for good. From the call on no permit becomes free for
    /// [`Permits::try_acquire_up_to`], so that the consumer takes nothing more over.
    pub async fn drain(&self) {
        self.free.acquire_many(self.all).await.expect("the semaphore is never closed").forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    fn permits(count: usize) -> Permits {
        Permits::new(NonZeroUsize::new(count).unwrap())
    }

    #[tokio::test]
    async fn no_more_are_taken_than_are_free_and_wanted() {
        let permits = permits(3);
        let one = permits.try_acquire_up_to(1).unwrap();
        let others = permits.acquire_up_to(5).await;
        assert_eq!((one.num_permits(), others.num_permits()), (1, 2));
        assert!(permits.try_acquire_up_to(1).is_none());
        drop(one);
        assert_eq!(permits.try_acquire_up_to(5).unwrap().num_permits(), 1, "what is dropped is free again");
        assert!(permits.try_acquire_up_to(0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_permits_is_served_first_but_not_for_ever() {
        let permits = permits(3);
        let [one, other] = [permits.acquire_up_to(1).await, permits.acquire_up_to(1).await];
        let mut gathered = pin!(permits.wait_for(9, Duration::from_millis(10)));
        assert!(gathered.as_mut().now_or_never().is_none());
        drop(one);
        assert!(permits.try_acquire_up_to(2).is_none(), "two are free, and waited for");
        gathered.await;
        assert_eq!(permits.try_acquire_up_to(3).unwrap().num_permits(), 2, "the time is over");
        drop(other);
        permits.wait_for(9, Duration::MAX).await;
    }

    #[tokio::test]
    async fn drain_waits_for_the_jobs_under_way_and_lets_none_begin() {
        let permits = permits(2);
        let busy = permits.try_acquire_up_to(1).unwrap();
        let mut drain = pin!(permits.drain());
        assert!(drain.as_mut().now_or_never().is_none());
        assert!(permits.try_acquire_up_to(1).is_none(), "the other permit is not free any more");
        drop(busy);
        drain.await;
        assert!(permits.try_acquire_up_to(1).is_none());
    }
}
