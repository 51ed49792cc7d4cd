//! The hands of a pool: how many jobs of a kind are done at a time. A job is begun only by who holds a hand for it, be
//! it the pool, which claims what is queued, or the consumer, which takes over what it is about to write.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// A fixed number of hands. Clones share them. A hand that was taken is free again when it is dropped.
#[derive(Debug, Clone)]
pub struct Hands {
    free: Arc<Semaphore>,
    all: u32,
}

impl Hands {
    /// So many hands, all of them free.
    pub fn new(count: NonZeroUsize) -> Self {
        let all = u32::try_from(count.get()).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for a free hand and takes all that are free, at most `most`. Who waits here is served before
    /// [`Hands::try_take`], so that what has been queued longer is not overtaken for ever.
    pub async fn take(&self, most: usize) -> OwnedSemaphorePermit {
        let mut taken = self.free.clone().acquire_owned().await.expect("the semaphore is never closed");
        if let Some(others) = self.try_take(most.saturating_sub(1)) {
            taken.merge(others);
        }
        taken
    }

    /// Waits until `most` hands are free at once, or all of them if there are fewer, but no longer than this. What becomes
    /// free meanwhile is kept from [`Hands::try_take`].
    pub async fn gather(&self, most: usize, longest: Duration) {
        let count = u32::try_from(most).unwrap_or(u32::MAX).min(self.all);
        // Whether they came in time or not, they are let go of here and taken as they are needed.
        drop(timeout(longest, self.free.acquire_many(count)).await);
    }

    /// Takes all that are free at this moment, at most `most`; `None` if there is none, or others were quicker.
    pub fn try_take(&self, most: usize) -> Option<OwnedSemaphorePermit> {
        let count = self.free.available_permits().min(most);
        let count = u32::try_from(count).expect("there are no more hands than that");
        self.free.clone().try_acquire_many_owned(count).ok().filter(|taken| taken.num_permits() > 0)
    }

    /// Waits until every job is done. No hand is ever free again after that, and none becomes free for
    /// [`Hands::try_take`] from when this is called.
    pub async fn rest(&self) {
        self.free.acquire_many(self.all).await.expect("the semaphore is never closed").forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    fn hands(count: usize) -> Hands {
        Hands::new(NonZeroUsize::new(count).unwrap())
    }

    #[tokio::test]
    async fn no_more_are_taken_than_are_free_and_wanted() {
        let hands = hands(3);
        let one = hands.try_take(1).unwrap();
        let others = hands.take(5).await;
        assert_eq!((one.num_permits(), others.num_permits()), (1, 2));
        assert!(hands.try_take(1).is_none());
        drop(one);
        assert_eq!(hands.try_take(5).unwrap().num_permits(), 1, "what is dropped is free again");
        assert!(hands.try_take(0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gathers_hands_is_served_first_but_not_for_ever() {
        let hands = hands(3);
        let [one, other] = [hands.take(1).await, hands.take(1).await];
        let mut gathered = pin!(hands.gather(9, Duration::from_millis(10)));
        assert!(gathered.as_mut().now_or_never().is_none());
        drop(one);
        assert!(hands.try_take(2).is_none(), "two are free, and waited for");
        gathered.await;
        assert_eq!(hands.try_take(3).unwrap().num_permits(), 2, "the time is over");
        drop(other);
        hands.gather(9, Duration::MAX).await;
    }

    #[tokio::test]
    async fn rest_waits_for_the_jobs_under_way_and_lets_none_begin() {
        let hands = hands(2);
        let busy = hands.try_take(1).unwrap();
        let mut rest = pin!(hands.rest());
        assert!(rest.as_mut().now_or_never().is_none());
        assert!(hands.try_take(1).is_none(), "the other hand is not free any more");
        drop(busy);
        rest.await;
        assert!(hands.try_take(1).is_none());
    }
}
