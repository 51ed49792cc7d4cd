//! The Kafka client of a consumer: which partitions are assigned to it, rewinding, and closing.

use crate::progress::Progress;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::KafkaError,
};
use std::{ops::Deref, thread, time::Duration};
use tokio::time::timeout;

/// Longest wait for Kafka when a consumer leaves its group. The relay, which stops after it, needs the rest of the
/// drain time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a seek.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

/// The client. Closing it blocks until Kafka answers, so it happens on a thread that may block.
pub struct Client(Option<StreamConsumer<Progress>>);

impl Client {
    /// Wraps a client.
    pub fn new(client: StreamConsumer<Progress>) -> Self {
        Self(Some(client))
    }

    /// Returns whether the partition is assigned to this consumer, as far as it knows.
    pub fn owns(&self, topic: &str, partition: i32) -> bool {
        let has = || self.assignment().is_ok_and(|all| all.find_partition(topic, partition).is_some());
        !self.assignment_lost() && has()
    }

    /// Lets the client commit these offsets in the background.
    pub fn store(&self, positions: &TopicPartitionList) {
        if let Err(error) = self.store_offsets(positions) {
            // After a rebalance another consumer has the partition, and reads the batch again, which changes nothing.
            tracing::warn!(error.cause = %error, "offsets will not be committed");
        }
    }

    /// Rewinds these partitions to their start. Blocks for a moment. Fails if the commit fails: the next owner of the
    /// partition would start at the old offset.
    pub fn rewind(&self, places: &[(String, i32)]) -> Result<(), KafkaError> {
        let mut start = TopicPartitionList::with_capacity(places.len());
        for (topic, partition) in places {
            start.add_partition_offset(topic, *partition, Offset::Offset(0))?;
        }
        // The stored offset goes first: the automatic commit would put the old one back, as it is above the committed
        // one.
        self.store_offsets(&start)?;
        self.commit(&start, CommitMode::Sync)?;
        for (topic, partition) in places {
            self.seek(topic, *partition, Offset::Beginning, SEEK_TIMEOUT)?;
        }
        Ok(())
    }

    /// Commits the stored offsets and leaves the group. Returns once that is done, or after a time-out: then the
    /// session expires at Kafka, and records without a committed offset are read again.
    pub async fn close(mut self) {
        let client = self.0.take();
        let closing = tokio::task::spawn_blocking(move || drop(client));
        // A panic of the closing thread changes nothing: the process ends.
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("Kafka does not answer, the consumer stops without leaving its group");
        }
    }
}

impl Deref for Client {
    type Target = StreamConsumer<Progress>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is there until it is closed")
    }
}

/// Closing blocks, so a dropped consumer is closed on a thread of its own, not on one of the runtime.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            let closing = thread::Builder::new().name("kafka closing".into()).spawn(move || drop(client));
            if let Err(error) = closing {
                tracing::warn!(error.cause = %error, "the consumer stops without leaving its group");
            }
        }
    }
}
