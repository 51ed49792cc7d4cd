//! Finds when the oldest of some records was written, by reading one record of each partition.

use super::{READ_TIMEOUT, client, next};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use stampede_vocab::Timestamp;
use std::{collections::HashSet, time::Instant};

/// Returns when the oldest of these records, by partition and offset, was written; `None` if there are none, or if
/// Kafka does not show one of each partition in time.
pub(super) fn of(brokers: &str, topic: &str, first: &[(i32, i64)]) -> anyhow::Result<Option<Timestamp>> {
    if first.is_empty() {
        return Ok(None);
    }
    let client = client(brokers, "stampede.lag")?;
    let mut assignment = TopicPartitionList::new();
    for (partition, offset) in first {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    client.assign(&assignment)?;
    read_one_of_each(&client, topic, first.iter().map(|(partition, _)| *partition).collect())
}

fn read_one_of_each(
    client: &BaseConsumer,
    topic: &str,
    mut awaited: HashSet<i32>,
) -> anyhow::Result<Option<Timestamp>> {
    let until = Instant::now() + READ_TIMEOUT;
    let mut oldest: Option<Timestamp> = None;
    while !awaited.is_empty() {
        if Instant::now() >= until {
            return Ok(None);
        }
        let Some(record) = next(client)? else { continue };
        if !awaited.remove(&record.partition()) {
            continue;
        }
        let written = record.timestamp().to_millis().map(|ms| Timestamp::from_micros(ms.saturating_mul(1_000)));
        oldest = oldest.into_iter().chain(written).min();
        // The rest of the partition is not needed.
        let mut done = TopicPartitionList::new();
        done.add_partition(topic, record.partition());
        client.pause(&done)?;
    }
    Ok(oldest)
}
