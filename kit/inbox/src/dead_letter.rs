//! Where a message goes that cannot be applied: `<topic>.<consumer>.dlq`, with all it came with and why.

use crate::Message;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use std::time::Duration;

/// Longest wait until Kafka has a dead letter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends dead letters of one consumer.
pub struct DeadLetters {
    producer: FutureProducer,
    consumer: String,
}

impl DeadLetters {
    pub fn new(brokers: &str, consumer: String) -> Result<Self, KafkaError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "10000")
            .set("partitioner", "murmur2_random")
            .create()?;
        Ok(Self { producer, consumer })
    }

    /// Sends `message` to the dead letters of its topic. Returns once Kafka has it.
    pub async fn send(&self, message: &Message, why: &str) -> Result<(), KafkaError> {
        let topic = format!("{}.{}.dlq", message.topic, self.consumer);
        let record =
            FutureRecord::to(&topic).key(&message.key).payload(&message.payload).headers(headers(message, why));
        self.producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        tracing::error!(
            messaging.topic = %message.topic,
            messaging.dead_letter_topic = %topic,
            messaging.key = %message.key,
            messaging.message_type = %message.message_type,
            why,
            "message cannot be applied, set aside as a dead letter"
        );
        Ok(())
    }
}

fn headers(message: &Message, why: &str) -> OwnedHeaders {
    let id = message.id.to_string();
    let place = format!("{}/{}", message.partition, message.offset);
    let mut headers = OwnedHeaders::new();
    for (key, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", message.source.as_str()),
        ("ce_type", message.message_type.as_str()),
        ("content-type", "application/protobuf"),
        ("stampede_dead_letter_reason", why),
        ("stampede_dead_letter_from", place.as_str()),
    ] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    match &message.traceparent {
        Some(parent) => headers.insert(Header { key: "traceparent", value: Some(parent) }),
        None => headers,
    }
}
