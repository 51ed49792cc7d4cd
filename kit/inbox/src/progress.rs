//! The progress of a consumer: its lag, whether it is stalled, and whether it is a member of its group.

use crate::log_throttle::{LogEvent, LogThrottle};
use rdkafka::{
    ClientContext, Statistics,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    statistics::{Partition, Topic},
};
use stampede_vocab::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A consumer is stalled if it has applied nothing, or was no member of its group, for so long.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an abandoned batch may take to be delivered again to this consumer. After that another one has it.
const REDELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Failures to read that are no further apart are the same one: the client retries more often.
const SAME_FAILURE: Duration = Duration::from_secs(10);

/// The progress of one consumer. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Since when nothing of the batch under way was applied, however often it was abandoned and read again; `None`
    /// without a batch.
    stalled_since: Option<Instant>,
    /// When the batch was abandoned; `None` if it was not.
    abandoned_at: Option<Instant>,
    /// When the oldest record of the batch under way was written, by topic.
    in_flight: HashMap<String, Timestamp>,
    /// When a record of the topic was last applied.
    applied: HashMap<String, Instant>,
    /// Messages that are not read yet, by topic.
    lag: HashMap<String, u64>,
    /// The partitions with a lag, and the next offset of each.
    unread: Vec<String>,
    /// The last failure to read, which may be over.
    failing: Option<Failing>,
    /// Since when it is no member of its group; `None` while it is, even without a partition.
    unassigned_since: Option<Instant>,
}

/// A failure to read, perhaps of one partition only.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    throttle: LogThrottle,
}

impl Inner {
    /// Whether the batch was abandoned, and may be delivered again.
    fn awaits_redelivery(&self) -> bool {
        self.abandoned_at.is_some_and(|abandoned_at| abandoned_at.elapsed() <= REDELIVERY_TIMEOUT)
    }

    /// Forgets an abandoned batch that was not delivered again in time.
    fn forget_abandoned(&mut self) {
        if self.abandoned_at.is_some() && !self.awaits_redelivery() {
            (self.stalled_since, self.abandoned_at) = (None, None);
            self.in_flight.clear();
        }
    }
}

impl Failing {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, last: now, throttle: LogThrottle::default() }
    }

    fn is_over(&self) -> bool {
        self.last.elapsed() >= SAME_FAILURE
    }
}

impl Progress {
    /// Returns the progress of a consumer that starts now.
    pub(crate) fn new() -> Self {
        let now = Some(Instant::now());
        let inner = Inner {
            stalled_since: None,
            abandoned_at: None,
            in_flight: HashMap::new(),
            applied: HashMap::new(),
            lag: HashMap::new(),
            unread: Vec::new(),
            failing: None,
            unassigned_since: now,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Returns whether the consumer is stalled: for longer than half a minute it has applied nothing of its batch,
    /// could not read a partition, or was no member of its group.
    pub fn stands_still(&self) -> bool {
        let mut inner = self.inner();
        inner.forget_abandoned();
        let is_long = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > STALL_TIMEOUT);
        let failing = inner.failing.as_ref().filter(|failing| !failing.is_over());
        is_long(inner.stalled_since) || is_long(inner.unassigned_since) || is_long(failing.map(|failing| failing.since))
    }

    /// Notes a failure to read. Returns what to log of it.
    pub(crate) fn cannot_read(&self) -> LogEvent {
        let mut inner = self.inner();
        if inner.failing.as_ref().is_some_and(Failing::is_over) {
            inner.failing = None;
        }
        let failing = inner.failing.get_or_insert_with(Failing::new);
        failing.last = Instant::now();
        failing.throttle.failure()
    }

    /// Returns the partitions with a lag and the next offset of each, as of some seconds ago.
    pub(crate) fn unread(&self) -> String {
        self.inner().unread.join(", ")
    }

    /// Notes that a batch was read, with the time of its oldest record by topic.
    pub(crate) fn started(&self, oldest: HashMap<String, Timestamp>) {
        let mut inner = self.inner();
        inner.forget_abandoned();
        inner.abandoned_at = None;
        inner.stalled_since.get_or_insert_with(Instant::now);
        inner.in_flight = oldest;
    }

    /// Notes that a part of the batch was applied.
    pub(crate) fn progressed(&self) {
        self.inner().stalled_since = Some(Instant::now());
    }

    /// Notes that the batch was abandoned. Its age and its stall go on when it is delivered again.
    pub(crate) fn abandoned(&self) {
        self.inner().abandoned_at = Some(Instant::now());
    }

    /// Notes that the whole batch was applied.
    pub(crate) fn finished(&self) {
        let mut inner = self.inner();
        inner.stalled_since = None;
        let now = Instant::now();
        for topic in std::mem::take(&mut inner.in_flight).into_keys() {
            inner.applied.insert(topic, now);
        }
    }

    /// Returns the lag of the topic in messages, over the assigned partitions.
    pub(crate) fn lag_messages(&self, topic: &str) -> u64 {
        self.inner().lag.get(topic).copied().unwrap_or(0)
    }

    /// Returns the lag of the topic in time: the age of the oldest record of the batch under way, or without a batch
    /// the time since the last one while there is a lag in messages.
    pub(crate) fn lag_in_time(&self, topic: &str) -> Duration {
        let mut inner = self.inner();
        inner.forget_abandoned();
        let behind = inner.lag.get(topic).copied().unwrap_or(0) > 0;
        match (inner.in_flight.get(topic), inner.applied.get(topic)) {
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
        let unread: Vec<String> = statistics.topics.iter().flat_map(|(name, topic)| unread_of(name, topic)).collect();
        let lag = statistics.topics.into_iter().map(|(name, topic)| (name, lag_of(&topic)));
        let mut inner = self.inner();
        // A client that is joining its group again reports no lag.
        if !inner.awaits_redelivery() {
            inner.unread = unread;
            inner.lag.extend(lag);
        }
    }
}

impl ConsumerContext for Progress {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut inner = self.inner();
        match rebalance {
            Rebalance::Assign(_) => inner.unassigned_since = None,
            Rebalance::Revoke(_) | Rebalance::Error(_) => {
                inner.unassigned_since.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// Returns the lag of the assigned partitions; the client reports -1 for the others.
fn lag_of(topic: &Topic) -> u64 {
    topic.partitions.values().map(|partition| u64::try_from(partition.consumer_lag).unwrap_or(0)).sum()
}

/// Returns the assigned partitions with a lag, and the next offset of each.
fn unread_of(name: &str, topic: &Topic) -> Vec<String> {
    let is_behind = |partition: &&Partition| partition.fetch_state == "active" && partition.hi_offset > next(partition);
    let place = |partition: &Partition| format!("{name}/{} at {}", partition.partition, next(partition));
    topic.partitions.values().filter(is_behind).map(place).collect()
}

/// Returns the offset to read next. The client reports unknown offsets as negative numbers.
fn next(partition: &Partition) -> i64 {
    partition.app_offset.max(partition.committed_offset).max(partition.lo_offset).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn assigned() -> Progress {
        let progress = Progress::new();
        progress.inner().unassigned_since = None;
        progress
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_applies_nothing_or_is_in_no_group_is_stalled() {
        let alone = Progress::new();
        let busy = assigned();
        busy.started(HashMap::new());
        for progress in [&alone, &busy] {
            assert!(!progress.stands_still());
        }
        advance(STALL_TIMEOUT + Duration::from_millis(1)).await;
        for progress in [&alone, &busy] {
            assert!(progress.stands_still());
        }
        busy.progressed();
        assert!(!busy.stands_still());
        advance(2 * STALL_TIMEOUT).await;
        busy.finished();
        assert!(!busy.stands_still(), "it has nothing to do");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_abandoned_and_delivered_again_is_stalled_all_the_time() {
        let (progress, written) = (assigned(), Timestamp::now().minus(Duration::from_secs(100)));
        let oldest = || HashMap::from([("t".to_owned(), written)]);
        for round in 0..3 {
            progress.started(oldest());
            advance(STALL_TIMEOUT + Duration::from_secs(30)).await;
            assert!(progress.stands_still(), "round {round}");
            progress.abandoned();
            advance(Duration::from_secs(5)).await;
            assert!(progress.stands_still(), "it joins its group again, round {round}");
            assert!(progress.lag_in_time("t") >= Duration::from_secs(100), "round {round}");
        }
        progress.started(oldest());
        assert!(progress.stands_still());
        progress.progressed();
        assert!(!progress.stands_still());
        progress.finished();

        progress.started(oldest());
        advance(2 * STALL_TIMEOUT).await;
        progress.abandoned();
        advance(REDELIVERY_TIMEOUT + Duration::from_millis(1)).await;
        assert!(!progress.stands_still(), "another consumer has it");
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO);
        progress.started(oldest());
        assert!(!progress.stands_still(), "that is another batch");
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_cannot_read_logs_that_once_a_minute_and_is_stalled() {
        let progress = assigned();
        let mut logged = Vec::new();
        for second in 0..=70 {
            if progress.cannot_read() != LogEvent::Suppressed {
                logged.push(second);
            }
            assert_eq!(progress.stands_still(), second > STALL_TIMEOUT.as_secs(), "after {second} s");
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(logged, [0, 60]);
        advance(SAME_FAILURE).await;
        assert!(!progress.stands_still());
        assert_eq!(progress.cannot_read(), LogEvent::Started, "the next one is another");
    }

    #[test]
    fn what_is_not_read_is_named_with_its_offset() {
        let partition = |partition, app_offset, hi_offset| Partition {
            partition,
            app_offset,
            hi_offset,
            committed_offset: -1_001,
            lo_offset: 0,
            fetch_state: "active".to_owned(),
            ..Partition::default()
        };
        let others = Partition { fetch_state: "none".to_owned(), ..partition(3, 0, 9) };
        let partitions = [partition(0, 5, 5), partition(1, 5, 9), partition(2, -1_001, 9), others];
        let partitions = partitions.into_iter().map(|partition| (partition.partition, partition)).collect();
        let mut unread = unread_of("t", &Topic { partitions, ..Topic::default() });
        unread.sort_unstable();
        assert_eq!(unread, ["t/1 at 5", "t/2 at 0"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_what_is_applied_or_the_time_since() {
        let progress = assigned();
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO);
        let written = Timestamp::now().minus(Duration::from_secs(100));
        progress.started(HashMap::from([("t".to_owned(), written)]));
        assert!(progress.lag_in_time("t") >= Duration::from_secs(100));
        progress.finished();
        advance(Duration::from_secs(7)).await;
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO, "all is read");
        progress.inner().lag.insert("t".to_owned(), 3);
        assert_eq!((progress.lag_in_time("t"), progress.lag_messages("t")), (Duration::from_secs(7), 3));
    }
}
