//! The Kafka client of a consumer: whether a partition is still its own, and how it is closed.

use crate::progress::Progress;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::KafkaError,
};
use std::{ops::Deref, thread, time::Duration};
use tokio::time::timeout;

/// Longest wait for Kafka when a consumer leaves: the relay, which stops after it, needs the rest of the time there is.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait until the client reads from another place.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

/// The client. Closing it waits for Kafka, without end if that is silent, so it happens on a thread that may block.
pub struct Client(Option<StreamConsumer<Progress>>);

impl Client {
    /// Takes care of this one.
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

    /// Reads these partitions from their start again. It blocks, for a moment. Fails if Kafka does not note it: the place
    /// that the group has would be that of the next one who is given the partition.
    pub fn rewind(&self, places: &[(String, i32)]) -> Result<(), KafkaError> {
        let mut start = TopicPartitionList::with_capacity(places.len());
        for (topic, partition) in places {
            start.add_partition_offset(topic, *partition, Offset::Offset(0))?;
        }
        // First what the client commits by itself: it commits only what is behind what it has committed.
        self.store_offsets(&start)?;
        self.commit(&start, CommitMode::Sync)?;
        for (topic, partition) in places {
            self.seek(topic, *partition, Offset::Beginning, SEEK_TIMEOUT)?;
        }
        Ok(())
    }

    /// Commits what is stored and leaves the group. Returns once that is done, or if Kafka does not answer in time: then
    /// the group finds out by itself, and what was not committed is read again.
    pub async fn close(mut self) {
        let client = self.0.take();
        let closing = tokio::task::spawn_blocking(move || drop(client));
        // A panic in there is one of the process that ends.
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("Kafka does not answer, the consumer leaves its group without a word");
        }
    }
}

impl Deref for Client {
    type Target = StreamConsumer<Progress>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is there until it is closed")
    }
}

/// A consumer that is dropped where it waits must not keep the thread of a runtime.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            let closing = thread::Builder::new().name("kafka closing".into()).spawn(move || drop(client));
            if let Err(error) = closing {
                tracing::warn!(error.cause = %error, "the consumer leaves its group without a word");
            }
        }
    }
}
