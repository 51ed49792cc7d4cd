//! Publishes messages to Kafka and waits for its acknowledgements.

use crate::{headers, rows::Unsent};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use stampede_kafka::{Delivery, Producer, Record, Undelivered};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// Sends in order, each message acknowledged by every replica in sync.
pub struct Sender {
    producer: Producer,
    topic: String,
    source: String,
}

impl Sender {
    pub fn new(brokers: &str, topic: String, source: String) -> Result<Self, KafkaError> {
        Ok(Self { producer: Producer::new(brokers)?, topic, source })
    }

    /// Sends all, and returns the ids of those that were acknowledged within `timeout`. Where one was not, no later
    /// one of its aggregate is returned either: both are sent again, in order.
    pub async fn send(&self, messages: &[Unsent], timeout: Duration) -> Vec<u64> {
        let deadline = Instant::now() + timeout;
        // All are queued before the first is waited for, so that they share requests.
        let deliveries: Vec<_> = messages.iter().map(|message| self.enqueue(message)).collect();
        let mut stuck = HashSet::new();
        let mut sent = Vec::with_capacity(messages.len());
        for (message, delivery) in messages.iter().zip(deliveries) {
            let delivered = acknowledged(delivery, deadline).await;
            // A later message of the aggregate is sent again as well, or the repeat of the stuck one would come last.
            if delivered && !stuck.contains(message.aggregate_id.as_str()) {
                sent.push(message.id);
            } else {
                stuck.insert(message.aggregate_id.as_str());
            }
        }
        sent
    }

    /// Drops what is still queued, so that none of it is sent once another relay has the partition.
    pub fn purge(&self) {
        self.producer.purge();
    }

    fn enqueue(&self, message: &Unsent) -> Option<Delivery> {
        let record = Record {
            topic: &self.topic,
            key: Some(message.aggregate_id.as_bytes()),
            payload: Some(&message.payload),
            headers: headers::of(message, &self.source),
        };
        match self.producer.send(record) {
            Ok(delivery) => Some(delivery),
            Err(error) => {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    tracing::error!(outbox.id = message.id, messaging.topic = %self.topic, error.cause = %error, "message cannot be sent");
                }
                None
            }
        }
    }
}

async fn acknowledged(delivery: Option<Delivery>, deadline: Instant) -> bool {
    let Some(delivery) = delivery else { return false };
    match delivery.acknowledged(deadline).await {
        Ok(()) => true,
        Err(Undelivered::Refused(error)) => {
            tracing::warn!(error.cause = %error, "message was not acknowledged, it is sent again");
            false
        }
        // Logged once, for all of the round.
        Err(Undelivered::TimedOut) => false,
    }
}
