//! Sends messages that cannot be applied to `<topic>.<consumer>.dlq`, with their headers and the reason.

use crate::{Message, message::Unreadable};
use opentelemetry::{KeyValue, global, metrics::Counter};
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
};
use stampede_kafka::{Producer, Record, Undelivered};
use stampede_vocab::Service;
use std::{sync::OnceLock, time::Duration};
use tokio::time::Instant;

/// Header with the reason.
const REASON: &str = "stampede_dead_letter_reason";
/// Header with the place that it was read from: partition/offset of the topic.
const FROM: &str = "stampede_dead_letter_from";
/// Longest wait for the acknowledgement of a dead letter.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the dead letters of one consumer. The first one starts the producer: most consumers never have any, and a
/// producer has threads and connections.
pub struct DeadLetters {
    brokers: String,
    consumer: Service,
    producer: OnceLock<Producer>,
    sent: Counter<u64>,
}

impl DeadLetters {
    /// Returns the sender for what `consumer` reads from `topics`. The counter of each topic starts at 0 here: an alert
    /// on its increase would miss the first dead letter if the series began with it.
    pub fn new(brokers: String, consumer: Service, topics: &[String]) -> Self {
        let sent = global::meter("stampede.inbox")
            .u64_counter("stampede_inbox_dead_letters")
            .with_description("Messages that were set aside, unreadable records among them")
            .build();
        let letters = Self { brokers, consumer, producer: OnceLock::new(), sent };
        topics.iter().for_each(|topic| letters.count(topic, 0));
        letters
    }

    fn count(&self, topic: &str, letters: u64) {
        self.sent.add(letters, &[KeyValue::new("topic", topic.to_owned())]);
    }

    fn producer(&self) -> Result<&Producer, KafkaError> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let started = Producer::new(&self.brokers)?;
        Ok(self.producer.get_or_init(|| started))
    }

    /// Returns once Kafka has the letter. One that it does not take in time is dropped here: it is sent again.
    async fn deliver(&self, letter: Record<'_>) -> Result<(), Undelivered> {
        let producer = self.producer()?;
        let delivered = producer.send(letter)?.acknowledged(Instant::now() + SEND_TIMEOUT).await;
        if delivered.is_err() {
            producer.purge();
        }
        delivered
    }

    /// Sends `message` to the dead letters of its topic. Returns once Kafka has it.
    pub async fn send(&self, message: &Message, why: &str) -> Result<(), Undelivered> {
        let topic = self.topic_behind(&message.topic);
        let letter = Record {
            topic: &topic,
            key: Some(message.key.as_bytes()),
            payload: Some(&message.payload),
            headers: headers(message, why),
        };
        self.deliver(letter).await?;
        self.count(&message.topic, 1);
        tracing::error!(
            messaging.topic = %message.topic,
            messaging.dead_letter_topic = %topic,
            messaging.key = %message.key,
            messaging.message_type = %message.message_type,
            error.cause = why,
            "message cannot be applied, set aside as a dead letter"
        );
        Ok(())
    }

    /// Sends a record that is no message of ours as it came, with its place and the reason. Returns once Kafka has it.
    /// A record that is read again after a crash is sent again: it has no id to deduplicate by.
    pub async fn send_unreadable(&self, record: &Unreadable) -> Result<(), Undelivered> {
        let topic = self.topic_behind(&record.topic);
        let why = record.to_string();
        let headers = record
            .headers
            .clone()
            .insert(text(REASON, &why))
            .insert(text(FROM, &place(record.partition, record.offset)));
        let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
        self.deliver(Record { topic: &topic, key, payload, headers }).await?;
        self.count(&record.topic, 1);
        tracing::error!(
            messaging.topic = %record.topic,
            messaging.dead_letter_topic = %topic,
            error.cause = why,
            "message cannot be read, set aside as a dead letter"
        );
        Ok(())
    }

    fn topic_behind(&self, topic: &str) -> String {
        format!("{topic}.{}.dlq", self.consumer)
    }
}

fn place(partition: i32, offset: i64) -> String {
    format!("{partition}/{offset}")
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

fn headers(message: &Message, why: &str) -> OwnedHeaders {
    let id = message.id.to_string();
    let place = place(message.partition, message.offset);
    let mut headers = OwnedHeaders::new();
    for (key, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", message.source.as_str()),
        ("ce_type", message.message_type.as_str()),
        ("content-type", "application/protobuf"),
        (REASON, why),
        (FROM, place.as_str()),
    ] {
        headers = headers.insert(text(key, value));
    }
    match &message.traceparent {
        Some(parent) => headers.insert(text("traceparent", parent)),
        None => headers,
    }
}
