//! The metrics of the relay. Each replica reports the partitions that it sends.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);
/// Age of the oldest unsent message from which on it is logged.
const LATE: Duration = Duration::from_secs(5);
/// Time between two such log lines.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// How many messages are unsent, and when the oldest of them was written, in microseconds.
pub type Unsent = (usize, Option<i64>);

/// The counter and the gauges of one relay.
pub struct Meters {
    sent: Counter<u64>,
    unsent: Gauge<u64>,
    oldest_age: Gauge<f64>,
    topic: KeyValue,
    /// The last known unsent messages.
    last: Unsent,
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
                .with_description(
                    "Age of the oldest message of these; 0 where there is none, and growing while it cannot send",
                )
                .build(),
            topic: KeyValue::new("topic", topic),
            last: (0, None),
            measured: None,
            warned: None,
        }
    }

    /// Counts a message.
    pub fn sent(&self) {
        self.sent.add(1, std::slice::from_ref(&self.topic));
    }

    /// Measures the unsent messages, at most once a second. While they are unknown (`None`) the last known ones grow
    /// older.
    pub fn measure(&mut self, unsent: impl FnOnce() -> Option<Unsent>) {
        if self.measured.is_some_and(|measured| measured.elapsed() < INTERVAL) {
            return;
        }
        self.measured = Some(Instant::now());
        let known = unsent();
        let (count, age) = self.note(known, Timestamp::now());
        let topic = std::slice::from_ref(&self.topic);
        self.unsent.record(count as u64, topic);
        self.oldest_age.record(age.as_secs_f64(), topic);
        if age >= LATE && self.warned.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            let why = match known {
                Some(_) => "Kafka does not acknowledge in time, waiting for it",
                None => "messages wait, and this relay has no lease to send them",
            };
            tracing::warn!(
                messaging.topic = %self.topic.value,
                unsent_message.count = count,
                outbox.oldest_ms = age.as_millis(),
                "{why}"
            );
        }
    }

    /// Returns how many messages are unsent as far as it is known, and the age of the oldest.
    fn note(&mut self, unsent: Option<Unsent>, now: Timestamp) -> (usize, Duration) {
        self.last = unsent.unwrap_or(self.last);
        let (count, oldest_us) = self.last;
        let age_us = oldest_us.map_or(0, |created_us| (now.micros() - created_us).max(0));
        (count, Duration::from_micros(age_us.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_last_grows_older_until_more_is_known() {
        let mut meters = Meters::new("t".to_owned());
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        assert_eq!(meters.note(Some((3, Some(1_000_000))), at(2)), (3, Duration::from_secs(1)));
        assert_eq!(meters.note(None, at(31)), (3, Duration::from_secs(30)), "a relay that cannot send");
        assert_eq!(meters.note(Some((0, None)), at(32)), (0, Duration::ZERO));
        assert_eq!(meters.note(None, at(33)), (0, Duration::ZERO));
    }
}
