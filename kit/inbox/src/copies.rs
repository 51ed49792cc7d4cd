//! Copies of dead letters in `<topic>.<consumer>.dlq`, with every header and the reason, for whoever watches. They are
//! sent after the letter is stored, at least once.

use crate::letter::Stored;
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
};
use stampede_kafka::{Producer, Record, Undelivered};
use stampede_vocab::Service;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Header with the reason.
const REASON: &str = "stampede_dead_letter_reason";
/// Header with the place that it was read from: partition/offset of the topic.
const FROM: &str = "stampede_dead_letter_from";
/// Longest wait for the acknowledgement of a copy.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the copies of one consumer. The first one starts the producer: most consumers never have any, and a producer
/// has threads and connections.
pub struct Copies {
    brokers: String,
    consumer: Service,
    producer: Option<Producer>,
}

impl Copies {
    /// Sends to `brokers` what `consumer` has set aside.
    pub fn new(brokers: String, consumer: Service) -> Self {
        Self { brokers, consumer, producer: None }
    }

    /// Returns once Kafka has acknowledged the copy. One that is not acknowledged in time is purged here, and sent
    /// again later.
    pub async fn send(&mut self, letter: &Stored) -> Result<(), Undelivered> {
        let topic = format!("{}.{}.dlq", letter.topic, self.consumer);
        let copy = Record {
            topic: &topic,
            partition: None,
            key: Some(letter.record_key.as_deref().unwrap_or(letter.message_key.as_bytes())),
            payload: Some(&letter.payload),
            headers: headers(letter),
        };
        let producer = self.producer()?;
        let delivered = producer.send(copy)?.acknowledged(Instant::now() + SEND_TIMEOUT).await;
        if delivered.is_err() {
            // The purge must end first: it would drop the next record too.
            let _ = timeout(SEND_TIMEOUT, producer.purge()).await;
        }
        delivered
    }

    /// Returns the producer; a new one after a fatal error.
    fn producer(&mut self) -> Result<&Producer, KafkaError> {
        let usable = self.producer.take().filter(|producer| producer.fatal_error().is_none());
        let producer = usable.map_or_else(|| Producer::new(&self.brokers), Ok)?;
        Ok(self.producer.insert(producer))
    }
}

/// The original headers, with its place and the reason.
fn headers(letter: &Stored) -> OwnedHeaders {
    let place = format!("{}/{}", letter.partition_no, letter.record_offset);
    // The copy is sent even if the headers in the row were edited and cannot be parsed.
    let as_it_came = letter.headers().unwrap_or_default().to_kafka();
    as_it_came.insert(text(REASON, &letter.reason)).insert(text(FROM, &place))
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}
