//! How far a consumer is: what it is behind, since when it has applied or read nothing, and whether it is in its group.

use crate::loud::{Loud, Telling};
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

/// How long a consumer may apply nothing, or be in no group, before it stands still.
const STANDS_AFTER: Duration = Duration::from_secs(30);

/// How long after a batch was given up it may come again to this consumer. After that another one has it.
const COMES_AGAIN: Duration = Duration::from_secs(30);

/// Failures to read that are no further apart are one: the client tries again sooner.
const ONE_FAILURE: Duration = Duration::from_secs(10);

/// The progress of one consumer. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// Since when nothing of the batch under way was applied, however often it was given up and read again; `None`
    /// without one.
    waits_since: Option<Instant>,
    /// When the batch was given up; `None` if it was not.
    given_up: Option<Instant>,
    /// When the oldest record of the batch under way was written, by topic.
    in_hand: HashMap<String, Timestamp>,
    /// When a record of the topic was last applied.
    applied: HashMap<String, Instant>,
    /// Messages that are not read yet, by topic.
    lag: HashMap<String, u64>,
    /// The partitions of which messages are not read yet, with the next offset of each.
    unread: Vec<String>,
    /// The last failure to read, which may be over.
    failing: Option<Failing>,
    /// Since when it is in no group; `None` while it is, also as one that has no partition.
    alone_since: Option<Instant>,
}

/// Reading that fails, of one partition perhaps while others are read.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    loud: Loud,
}

impl Inner {
    /// Whether the batch was given up, and may come again.
    fn is_between(&self) -> bool {
        self.given_up.is_some_and(|given_up| given_up.elapsed() <= COMES_AGAIN)
    }

    /// Forgets a batch that was given up and did not come again.
    fn forget_given_up(&mut self) {
        if self.given_up.is_some() && !self.is_between() {
            (self.waits_since, self.given_up) = (None, None);
            self.in_hand.clear();
        }
    }
}

impl Failing {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, last: now, loud: Loud::default() }
    }

    fn is_over(&self) -> bool {
        self.last.elapsed() >= ONE_FAILURE
    }
}

impl Progress {
    /// That of a consumer that has just begun.
    pub(crate) fn new() -> Self {
        let now = Some(Instant::now());
        let inner = Inner {
            waits_since: None,
            given_up: None,
            in_hand: HashMap::new(),
            applied: HashMap::new(),
            lag: HashMap::new(),
            unread: Vec::new(),
            failing: None,
            alone_since: now,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Returns whether the consumer has applied nothing of its batch, could not read a partition, or was in no group,
    /// for longer than half a minute.
    pub fn stands_still(&self) -> bool {
        let mut inner = self.inner();
        inner.forget_given_up();
        let is_long = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() > STANDS_AFTER);
        let failing = inner.failing.as_ref().filter(|failing| !failing.is_over());
        is_long(inner.waits_since) || is_long(inner.alone_since) || is_long(failing.map(|failing| failing.since))
    }

    /// Something could not be read just now. Returns whether that is to be logged.
    pub(crate) fn cannot_read(&self) -> Telling {
        let mut inner = self.inner();
        if inner.failing.as_ref().is_some_and(Failing::is_over) {
            inner.failing = None;
        }
        let failing = inner.failing.get_or_insert_with(Failing::new);
        failing.last = Instant::now();
        failing.loud.fails()
    }

    /// The partitions of which messages are not read yet, with the next offset of each, as of some seconds ago.
    pub(crate) fn unread(&self) -> String {
        self.inner().unread.join(", ")
    }

    /// A batch was read, whose oldest records are these.
    pub(crate) fn begins(&self, oldest: HashMap<String, Timestamp>) {
        let mut inner = self.inner();
        inner.forget_given_up();
        inner.given_up = None;
        inner.waits_since.get_or_insert_with(Instant::now);
        inner.in_hand = oldest;
    }

    /// Some of the batch was applied.
    pub(crate) fn moves(&self) {
        self.inner().waits_since = Some(Instant::now());
    }

    /// The batch was given up. It is as old, and waits as long, when it comes again.
    pub(crate) fn gives_up(&self) {
        self.inner().given_up = Some(Instant::now());
    }

    /// All of the batch was applied.
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
        let mut inner = self.inner();
        inner.forget_given_up();
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
        let unread: Vec<String> = statistics.topics.iter().flat_map(|(name, topic)| unread_of(name, topic)).collect();
        let lag = statistics.topics.into_iter().map(|(name, topic)| (name, lag_of(&topic)));
        let mut inner = self.inner();
        // A client that is about to join its group again knows of no message.
        if !inner.is_between() {
            inner.unread = unread;
            inner.lag.extend(lag);
        }
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

/// Returns the partitions that this consumer reads and is behind in, with the next offset of each.
fn unread_of(name: &str, topic: &Topic) -> Vec<String> {
    let is_behind = |partition: &&Partition| partition.fetch_state == "active" && partition.hi_offset > next(partition);
    let place = |partition: &Partition| format!("{name}/{} at {}", partition.partition, next(partition));
    topic.partitions.values().filter(is_behind).map(place).collect()
}

/// The offset to read next. What the client does not know it gives as a negative number.
fn next(partition: &Partition) -> i64 {
    partition.app_offset.max(partition.committed_offset).max(partition.lo_offset).max(0)
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
    async fn a_batch_that_is_given_up_and_comes_again_has_stood_still_all_the_time() {
        let (progress, written) = (assigned(), Timestamp::now().minus(Duration::from_secs(100)));
        let oldest = || HashMap::from([("t".to_owned(), written)]);
        for round in 0..3 {
            progress.begins(oldest());
            advance(STANDS_AFTER + Duration::from_secs(30)).await;
            assert!(progress.stands_still(), "round {round}");
            progress.gives_up();
            advance(Duration::from_secs(5)).await;
            assert!(progress.stands_still(), "it joins its group again, round {round}");
            assert!(progress.lag_in_time("t") >= Duration::from_secs(100), "round {round}");
        }
        progress.begins(oldest());
        assert!(progress.stands_still());
        progress.moves();
        assert!(!progress.stands_still());
        progress.ends();

        progress.begins(oldest());
        advance(2 * STANDS_AFTER).await;
        progress.gives_up();
        advance(COMES_AGAIN + Duration::from_millis(1)).await;
        assert!(!progress.stands_still(), "another consumer has it");
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO);
        progress.begins(oldest());
        assert!(!progress.stands_still(), "that is another batch");
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_cannot_read_says_so_once_a_minute_and_stands_still() {
        let progress = assigned();
        let mut told = Vec::new();
        for second in 0..=70 {
            if progress.cannot_read() != Telling::Silent {
                told.push(second);
            }
            assert_eq!(progress.stands_still(), second > STANDS_AFTER.as_secs(), "after {second} s");
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [0, 60]);
        advance(ONE_FAILURE).await;
        assert!(!progress.stands_still());
        assert_eq!(progress.cannot_read(), Telling::Begun, "the next one is another");
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
        progress.begins(HashMap::from([("t".to_owned(), written)]));
        assert!(progress.lag_in_time("t") >= Duration::from_secs(100));
        progress.ends();
        advance(Duration::from_secs(7)).await;
        assert_eq!(progress.lag_in_time("t"), Duration::ZERO, "all is read");
        progress.inner().lag.insert("t".to_owned(), 3);
        assert_eq!((progress.lag_in_time("t"), progress.lag_messages("t")), (Duration::from_secs(7), 3));
    }
}
