//! How far a consumer is: what it is behind, since when it has applied nothing, and whether it is in its group.

use rdkafka::{
    ClientContext, Statistics,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    statistics::Topic,
};
use stampede_vocab::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a consumer may apply nothing, or be in no group, before it stands still.
const STANDS_AFTER: Duration = Duration::from_secs(30);

/// The progress of one consumer. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Since when nothing of the batch under way was applied; `None` without one.
    waits_since: Option<Instant>,
    /// When the oldest record of the batch under way was written, by topic.
    in_hand: HashMap<String, Timestamp>,
    /// When a record of the topic was last applied.
    applied: HashMap<String, Instant>,
    /// Messages that are not read yet, by topic.
    lag: HashMap<String, u64>,
    /// Since when it is in no group; `None` while it is, also as one that has no partition.
    alone_since: Option<Instant>,
}

impl Progress {
    /// That of a consumer that has just begun.
    pub(crate) fn new() -> Self {
        let now = Some(Instant::now());
        let (in_hand, applied, lag) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { inner: Arc::new(Mutex::new(Inner { waits_since: None, in_hand, applied, lag, alone_since: now })) }
    }

    /// Returns whether the consumer has applied nothing of its batch, or was in no group, for longer than half a minute.
    pub fn stands_still(&self) -> bool {
        let inner = self.inner();
        let is_long = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > STANDS_AFTER);
        is_long(inner.waits_since) || is_long(inner.alone_since)
    }

    /// A batch was read, whose oldest records are these.
    pub(crate) fn begins(&self, oldest: HashMap<String, Timestamp>) {
        let mut inner = self.inner();
        inner.waits_since = Some(Instant::now());
        inner.in_hand = oldest;
    }

    /// Some of the batch was applied.
    pub(crate) fn moves(&self) {
        self.inner().waits_since = Some(Instant::now());
    }

    /// All of the batch was applied, or it was given up.
    pub(crate) fn ends(&self) {
        let mut inner = self.inner();
        inner.waits_since = None;
        let now = Instant::now();
        for topic in std::mem::take(&mut inner.in_hand).into_keys() {
            inner.applied.insert(topic, now);
        }
    }

    /// Messages of the topic that were not read yet, of the partitions that the consumer has.
    pub(crate) fn lag_messages(&self, topic: &str) -> u64 {
        self.inner().lag.get(topic).copied().unwrap_or(0)
    }

    /// How far behind the topic is in time: the age of the oldest record that is being applied, or without one the time
    /// since the last one while there are messages that were not read.
    pub(crate) fn lag_in_time(&self, topic: &str) -> Duration {
        let inner = self.inner();
        let behind = inner.lag.get(topic).copied().unwrap_or(0) > 0;
        match (inner.in_hand.get(topic), inner.applied.get(topic)) {
            (Some(written), _) => Timestamp::now().since(*written),
            (None, Some(applied)) if behind => applied.elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Progress {
    fn stats(&self, statistics: Statistics) {
        let lag = statistics.topics.into_iter().map(|(name, topic)| (name, lag_of(&topic)));
        self.inner().lag.extend(lag);
    }
}

impl ConsumerContext for Progress {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut inner = self.inner();
        match rebalance {
            Rebalance::Assign(_) => inner.alone_since = None,
            Rebalance::Revoke(_) | Rebalance::Error(_) => {
                inner.alone_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// Returns the lag of the partitions that this consumer reads; the client gives -1 for the others.
fn lag_of(topic: &Topic) -> u64 {
    topic.partitions.values().map(|partition| u64::try_from(partition.consumer_lag).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn assigned() -> Progress {
        let progress = Progress::new();
        progress.inner().alone_since = None;
        progress
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_applies_nothing_or_is_in_no_group_stands_still() {
        let alone = Progress::new();
        let busy = assigned();
        busy.begins(HashMap::new());
        for progress in [&alone, &busy] {
            assert!(!progress.stands_still());
        }
        advance(STANDS_AFTER + Duration::from_millis(1)).await;
        for progress in [&alone, &busy] {
            assert!(progress.stands_still());
        }
        busy.moves();
        assert!(!busy.stands_still());
        advance(2 * STANDS_AFTER).await;
        busy.ends();
        assert!(!busy.stands_still(), "it has nothing to do");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_what_is_applied_or_the_time_since() {
        let progress = assigned();
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO);
        let written = Timestamp::now().minus(Duration::from_secs(100));
        progress.begins(HashMap::from([("t".to_owned(), written)]));
        assert!(progress.lag_in_time("t") >= Duration::from_secs(100));
        progress.ends();
        advance(Duration::from_secs(7)).await;
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO, "all is read");
        progress.inner().lag.insert("t".to_owned(), 3);
        assert_eq!((progress.lag_in_time("t"), progress.lag_messages("t")), (Duration::from_secs(7), 3));
    }
}
