//! Publishes messages to Kafka and waits for its acknowledgements.

use crate::{
    headers,
    producer::{Delivery, Producer, Record},
    rows::Unsent,
};
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{collections::HashSet, time::Duration};

/// Sends in order, each message acknowledged by every replica in sync.
pub struct Sender {
    producer: Producer,
    topic: String,
    source: String,
}

impl Sender {
    pub fn new(brokers: &str, topic: String, source: String) -> Result<Self, KafkaError> {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A message is never given up: that would let a later one of its aggregate overtake it.
            .set("message.timeout.ms", "0")
            // Long enough to queue a whole round: a request for each partition of it, not several.
            .set("linger.ms", "3")
            .set("compression.type", "none")
            // The hash of Kafka's own clients, so that every language finds the partition of a key.
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        Ok(Self { producer: Producer::new(&settings)?, topic, source })
    }

    /// Sends all, and returns the ids of those that were acknowledged within `timeout`. Where one was not, no later one
    /// of its aggregate is returned either: both are sent again, in order.
    pub async fn send(&self, messages: &[Unsent], timeout: Duration) -> Vec<u64> {
        let deadline = tokio::time::Instant::now() + timeout;
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
        let record = |reply| {
            Record::with_opaque_to(&self.topic, reply)
                .key(&message.aggregate_id)
                .payload(&message.payload)
                .headers(headers::of(message, &self.source))
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

async fn acknowledged(delivery: Option<Delivery>, deadline: tokio::time::Instant) -> bool {
    let Some(delivery) = delivery else { return false };
    match tokio::time::timeout_at(deadline, delivery).await {
        Ok(Ok(Ok(()))) => true,
        Ok(Ok(Err(error))) => {
            tracing::warn!(error.cause = %error, "message was not acknowledged, it is sent again");
            false
        }
        Ok(Err(_)) | Err(_) => false,
    }
}
