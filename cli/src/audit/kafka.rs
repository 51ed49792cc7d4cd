//! Everything that is on a topic now.

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use std::time::{Duration, Instant};

/// Longest wait for one answer of Kafka, and for the next message while there must be one.
const PATIENCE: Duration = Duration::from_secs(20);

/// One message, as far as the audit looks at it.
#[derive(Debug)]
pub struct Carried {
    /// Number at its source.
    pub id: u64,
    /// Key: the aggregate.
    pub key: String,
    /// Version of the aggregate that it tells of.
    pub sequence: i64,
}

/// Reads a topic from its beginning to where it ends now, each partition in order. Blocks: run it on a thread for that.
pub fn read_topic(brokers: &str, topic: &str) -> anyhow::Result<Vec<Carried>> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "stampede.audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    let metadata =
        client.fetch_metadata(Some(topic), PATIENCE).context("Kafka cannot be reached: check --kafka-brokers")?;
    let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
    let mut wanted = 0;
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        let (low, high) = client.fetch_watermarks(topic, partition.id(), PATIENCE)?;
        if high > low {
            wanted += high - low;
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
        }
    }
    if wanted == 0 {
        return Ok(Vec::new());
    }
    client.assign(&assignment)?;
    let mut carried = Vec::with_capacity(usize::try_from(wanted)?);
    let mut until = Instant::now() + PATIENCE;
    let mut read = 0;
    while read < wanted {
        anyhow::ensure!(Instant::now() < until, "{topic}: {read} of {wanted} messages, then none for {PATIENCE:?}");
        let Some(message) = client.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        read += 1;
        until = Instant::now() + PATIENCE;
        carried.push(Carried {
            id: header(&message, "ce_id").and_then(|id| id.parse().ok()).unwrap_or(0),
            key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
            sequence: header(&message, "ce_sequence").and_then(|number| number.parse().ok()).unwrap_or(0),
        });
    }
    Ok(carried)
}

fn header<'m>(message: &'m impl Message<Headers = rdkafka::message::BorrowedHeaders>, name: &str) -> Option<&'m str> {
    message
        .headers()?
        .iter()
        .find(|header| header.key == name)
        .and_then(|header| std::str::from_utf8(header.value?).ok())
}
