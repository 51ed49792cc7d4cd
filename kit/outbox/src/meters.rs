//! What the relay is measured by. Each replica tells of the partitions that it sends.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);
/// Age of a message from which on it is worth a line in the log.
const LATE: Duration = Duration::from_secs(5);
/// Time between two such lines.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The counter and the gauges of one relay.
pub struct Meters {
    sent: Counter<u64>,
    unsent: Gauge<u64>,
    oldest_age: Gauge<f64>,
    topic: KeyValue,
    measured: Option<Instant>,
    warned: Option<Instant>,
}

impl Meters {
    /// Of the relay that sends to `topic`.
    pub fn new(topic: String) -> Self {
        let meter = global::meter("stampede.outbox");
        Self {
            sent: meter
                .u64_counter("stampede_outbox_messages_sent")
                .with_description("Messages acknowledged by Kafka")
                .build(),
            unsent: meter
                .u64_gauge("stampede_outbox_unsent_messages")
                .with_description("Messages that this replica has read to send, and that Kafka has not acknowledged")
                .build(),
            oldest_age: meter
                .f64_gauge("stampede_outbox_oldest_unsent_age_seconds")
                .with_description("Age of the oldest message of these; 0 where there is none")
                .build(),
            topic: KeyValue::new("topic", topic),
            measured: None,
            warned: None,
        }
    }

    /// Counts a message.
    pub fn sent(&self) {
        self.sent.add(1, std::slice::from_ref(&self.topic));
    }

    /// Measures what is unsent, no more than once a second.
    pub fn measure(&mut self, unsent: impl FnOnce() -> (usize, Option<i64>)) {
        if self.measured.is_some_and(|measured| measured.elapsed() < INTERVAL) {
            return;
        }
        self.measured = Some(Instant::now());
        let (count, oldest_us) = unsent();
        let age_us = oldest_us.map_or(0, |created_us| (Timestamp::now().micros() - created_us).max(0));
        let age = Duration::from_micros(age_us.unsigned_abs());
        self.unsent.record(count as u64, &[]);
        self.oldest_age.record(age.as_secs_f64(), &[]);
        if age >= LATE && self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                messaging.topic = %self.topic.value,
                outbox.unsent = count,
                outbox.oldest_ms = age.as_millis(),
                "Kafka does not acknowledge in time, waiting for it"
            );
        }
    }
}
