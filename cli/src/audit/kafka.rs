//! Reads everything that a topic has now.

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    message::Headers,
};
use stampede_vocab::Timestamp;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Longest wait for one answer of Kafka, and for the next message while there must be one.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// The messages of a topic.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its messages, each partition in order.
    pub messages: Vec<Carried>,
    /// Whatever was written from then on is there; none if nothing was ever removed. Kafka removes what is older than
    /// its retention.
    pub whole_since: Option<Timestamp>,
}

/// One message, as far as the audit needs it.
#[derive(Debug)]
pub struct Carried {
    /// Number at its source.
    pub id: u64,
    /// Key: the aggregate.
    pub key: String,
    /// Version of the aggregate after the change.
    pub sequence: i64,
}

/// The offsets of one partition.
struct Span {
    partition: i32,
    low: i64,
    high: i64,
}

/// Reads a topic from its beginning to where it ends now. Fails if there is no such topic. Blocks: run it on a thread
/// for that.
pub fn read_topic(brokers: &str, topic: &str) -> anyhow::Result<Contents> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "stampede.audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    let spans = spans(&client, topic)?;
    let wanted: i64 = spans.iter().map(|span| span.high - span.low).sum();
    let mut reading = Reading::default();
    if wanted > 0 {
        let mut assignment = TopicPartitionList::new();
        for Span { partition, low, .. } in spans.iter().filter(|span| span.high > span.low) {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*low))?;
        }
        client.assign(&assignment)?;
        reading.read(&client, topic, wanted)?;
    }
    Ok(Contents { whole_since: whole_since(&spans, &reading.first_at), messages: reading.messages })
}

fn spans(client: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<Span>> {
    let metadata =
        client.fetch_metadata(Some(topic), READ_TIMEOUT).context("Kafka cannot be reached: check --kafka-brokers")?;
    let found = metadata.topics().first().with_context(|| format!("Kafka has no metadata of the topic {topic}"))?;
    if let Some(error) = found.error() {
        bail!(
            "topic {topic}: {}: check --kafka-topic-prefix, or run `stampede prepare`",
            RDKafkaErrorCode::from(error)
        );
    }
    ensure!(!found.partitions().is_empty(), "topic {topic} has no partitions");
    let span = |partition: i32| {
        let (low, high) = client.fetch_watermarks(topic, partition, READ_TIMEOUT)?;
        Ok(Span { partition, low, high })
    };
    found.partitions().iter().map(|partition| span(partition.id())).collect()
}

/// Returns the time since which the topic is complete. For a partition whose beginning was removed that is the time of
/// its first message, or now if it has none.
fn whole_since(spans: &[Span], first_at: &HashMap<i32, Timestamp>) -> Option<Timestamp> {
    let cut = spans.iter().filter(|span| span.low > 0);
    cut.map(|span| first_at.get(&span.partition).copied().unwrap_or_else(Timestamp::now)).max()
}

#[derive(Default)]
struct Reading {
    messages: Vec<Carried>,
    first_at: HashMap<i32, Timestamp>,
}

impl Reading {
    fn read(&mut self, client: &BaseConsumer, topic: &str, wanted: i64) -> anyhow::Result<()> {
        let mut until = Instant::now() + READ_TIMEOUT;
        let mut read = 0;
        while read < wanted {
            ensure!(Instant::now() < until, "{topic}: {read} of {wanted} messages, then none for {READ_TIMEOUT:?}");
            let Some(message) = client.poll(Duration::from_millis(100)) else { continue };
            let message = message?;
            read += 1;
            until = Instant::now() + READ_TIMEOUT;
            let written_ms = message.timestamp().to_millis().unwrap_or(0);
            self.first_at.entry(message.partition()).or_insert(Timestamp::from_micros(written_ms * 1_000));
            self.messages.push(Carried {
                id: header(&message, "ce_id").and_then(|id| id.parse().ok()).unwrap_or(0),
                key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
                sequence: header(&message, "ce_sequence").and_then(|number| number.parse().ok()).unwrap_or(0),
            });
        }
        Ok(())
    }
}

fn header<'m>(message: &'m impl Message<Headers = rdkafka::message::BorrowedHeaders>, name: &str) -> Option<&'m str> {
    message
        .headers()?
        .iter()
        .find(|header| header.key == name)
        .and_then(|header| std::str::from_utf8(header.value?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_whole_from_when_its_last_cut_partition_begins() {
        let at = Timestamp::from_micros;
        let spans = [
            Span { partition: 0, low: 0, high: 9 },
            Span { partition: 1, low: 4, high: 9 },
            Span { partition: 2, low: 2, high: 9 },
        ];
        let first_at = HashMap::from([(0, at(90)), (1, at(20)), (2, at(10))]);
        assert_eq!(whole_since(&spans, &first_at), Some(at(20)));
        assert_eq!(whole_since(&spans[..1], &first_at), None);
    }

    #[test]
    fn a_partition_that_was_emptied_has_nothing_from_before_now() {
        let spans = [Span { partition: 0, low: 7, high: 7 }];
        assert!(whole_since(&spans, &HashMap::new()) > Some(Timestamp::from_micros(1_700_000_000_000_000)));
    }
}
