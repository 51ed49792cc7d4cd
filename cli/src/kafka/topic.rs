//! Reads the present records of a topic in batches, so that only a few are in memory.

use super::{READ_TIMEOUT, Span, client, next};
use anyhow::ensure;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedHeaders, BorrowedMessage, Headers},
};
use stampede_vocab::Timestamp;
use std::{collections::HashMap, time::Instant};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::{JoinHandle, spawn_blocking},
};

/// Records of one batch.
const BATCH: usize = 1_000;
/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// One record.
#[derive(Debug, Clone, Default)]
pub struct Carried {
    pub partition: i32,
    pub offset: i64,
    /// The CloudEvents id: names the message at its source.
    pub id: String,
    /// The CloudEvents source: the writer.
    pub source: String,
    /// Full name of the message.
    pub message_type: String,
    /// Key: the aggregate.
    pub key: String,
    /// Version of the aggregate after the change.
    pub sequence: i64,
    pub payload: Vec<u8>,
    /// When the message was written to its outbox; without that header, when the record was sent.
    pub written_us: i64,
    /// Partition and offset of the original of a dead letter.
    pub copy_of: Option<(i32, i64)>,
}

/// The records of a topic, each partition in order.
pub struct Records {
    batches: Receiver<Vec<Carried>>,
    reading: JoinHandle<anyhow::Result<Option<Timestamp>>>,
}

impl Records {
    /// Reads these spans of a topic, on a thread of its own.
    pub(super) fn read(brokers: String, topic: String, spans: Vec<Span>) -> Self {
        let (sender, batches) = mpsc::channel(READ_AHEAD);
        Self { batches, reading: spawn_blocking(move || read(&brokers, &topic, &spans, &sender)) }
    }

    /// Returns the next batch; `None` once all are read, or reading has failed ([`Records::finish`] returns the error).
    pub async fn next(&mut self) -> Option<Vec<Carried>> {
        self.batches.recv().await
    }

    /// Returns the time since which the topic is complete; `None` if nothing was ever removed by its retention. Must be
    /// called after the last batch.
    pub async fn finish(self) -> anyhow::Result<Option<Timestamp>> {
        self.reading.await?
    }
}

fn read(
    brokers: &str,
    topic: &str,
    spans: &[Span],
    batches: &Sender<Vec<Carried>>,
) -> anyhow::Result<Option<Timestamp>> {
    let wanted: i64 = spans.iter().map(|span| span.high - span.low).sum();
    let mut first_at = HashMap::new();
    if wanted > 0 {
        let client = client(brokers, "stampede.audit")?;
        let mut assignment = TopicPartitionList::new();
        for Span { partition, low, .. } in spans.iter().filter(|span| span.high > span.low) {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*low))?;
        }
        client.assign(&assignment)?;
        drain(&client, topic, wanted, &mut first_at, batches)?;
    }
    Ok(whole_since(spans, &first_at))
}

fn drain(
    client: &BaseConsumer,
    topic: &str,
    wanted: i64,
    first_at: &mut HashMap<i32, Timestamp>,
    batches: &Sender<Vec<Carried>>,
) -> anyhow::Result<()> {
    let mut until = Instant::now() + READ_TIMEOUT;
    let (mut read, mut batch) = (0, Vec::with_capacity(BATCH));
    while read < wanted {
        ensure!(Instant::now() < until, "{topic}: {read} of {wanted} messages, then none for {READ_TIMEOUT:?}");
        let Some(message) = next(client)? else { continue };
        read += 1;
        let sent_us = message.timestamp().to_millis().unwrap_or(0) * 1_000;
        first_at.entry(message.partition()).or_insert(Timestamp::from_micros(sent_us));
        batch.push(carried(&message, sent_us));
        let is_full = batch.len() >= BATCH || read == wanted;
        if is_full && batches.blocking_send(std::mem::take(&mut batch)).is_err() {
            // The audit has failed meanwhile, and waits only for this thread.
            return Ok(());
        }
        until = Instant::now() + READ_TIMEOUT;
    }
    Ok(())
}

/// Returns the time since which the topic is complete. For a truncated partition that is the time of its first message,
/// or now if it has none.
fn whole_since(spans: &[Span], first_at: &HashMap<i32, Timestamp>) -> Option<Timestamp> {
    let cut = spans.iter().filter(|span| span.low > 0);
    cut.map(|span| first_at.get(&span.partition).copied().unwrap_or_else(Timestamp::now)).max()
}

fn carried(message: &BorrowedMessage<'_>, sent_us: i64) -> Carried {
    let text = |name| header(message, name).unwrap_or_default().to_owned();
    let written = header(message, "ce_time").and_then(|time| time.parse::<jiff::Timestamp>().ok());
    Carried {
        partition: message.partition(),
        offset: message.offset(),
        id: text("ce_id"),
        source: text("ce_source"),
        message_type: text("ce_type"),
        key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
        sequence: header(message, "ce_sequence").and_then(|number| number.parse().ok()).unwrap_or(0),
        payload: message.payload().unwrap_or_default().to_vec(),
        written_us: written.map_or(sent_us, |time| time.as_microsecond()),
        copy_of: header(message, "stampede_dead_letter_from").and_then(place),
    }
}

/// Reads `partition/offset`.
fn place(text: &str) -> Option<(i32, i64)> {
    let (partition, offset) = text.split_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

fn header<'m>(message: &'m impl Message<Headers = BorrowedHeaders>, name: &str) -> Option<&'m str> {
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

    #[test]
    fn the_place_of_what_was_copied_is_read() {
        assert_eq!(place("3/17"), Some((3, 17)));
        assert_eq!(place("3"), None);
    }
}
