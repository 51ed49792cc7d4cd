//! The progress of the consumer group of each service, by the offsets that it has committed.
//!
//! A service stores the offset of a message once the transaction of its effect is committed, so every message below the
//! committed offset has taken effect. Reading the offsets of a group does not join it.

use super::{READ_TIMEOUT, Records, Span, client, oldest, partitions, spans, with_retry};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use stampede_vocab::{Service, Timestamp};
use std::{collections::HashMap, sync::Arc};
use tokio::task::spawn_blocking;

/// The group of one service.
struct Group {
    reader: Service,
    client: BaseConsumer,
    /// The topics that it reads, with their partitions.
    reads: Vec<(Service, Vec<i32>)>,
}

struct Inner {
    brokers: String,
    prefix: String,
    groups: Vec<Group>,
}

/// The consumer groups of all services. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

/// Committed offset of each partition of a topic; partitions without one are left out.
pub type Committed = HashMap<i32, i64>;

/// Lag of a reader in the topic of a writer.
#[derive(Debug, Clone)]
pub struct Behind {
    pub writer: Service,
    pub reader: Service,
    /// Unread records, including types that the reader skips.
    pub records: i64,
    /// First unread record in each partition that has any: partition and offset.
    pub first: Vec<(i32, i64)>,
}

impl Groups {
    /// Connects to Kafka. Fails if a topic that a service reads does not exist.
    pub async fn connect(brokers: &str, topic_prefix: &str) -> anyhow::Result<Self> {
        let (brokers, prefix) = (brokers.to_owned(), topic_prefix.to_owned());
        let connected = spawn_blocking(move || {
            let mut groups = Vec::new();
            for reader in Service::ALL.into_iter().filter(|service| service.reads().next().is_some()) {
                let client = client(&brokers, &format!("{prefix}.{reader}"))?;
                let mut reads = Vec::new();
                for writer in Service::ALL.into_iter().filter(|writer| writer.readers().any(|one| one == reader)) {
                    reads.push((writer, partitions(&client, &writer.topic(&prefix))?));
                }
                groups.push(Group { reader, client, reads });
            }
            Ok::<_, anyhow::Error>(Inner { brokers, prefix, groups })
        });
        Ok(Self(Arc::new(connected.await??)))
    }

    /// Returns the committed offsets of `reader` in the topic of `writer`.
    pub async fn committed(&self, writer: Service, reader: Service) -> anyhow::Result<Committed> {
        let inner = self.0.clone();
        let committed = move || {
            let group = inner.groups.iter().find(|group| group.reader == reader);
            group.map_or_else(|| Ok(Committed::new()), |group| group.committed(writer, &inner.prefix))
        };
        spawn_blocking(committed).await?
    }

    /// Returns the lag of each reader in each topic, without zeroes.
    pub async fn unread(&self) -> anyhow::Result<Vec<(Service, Service, i64)>> {
        let behind = self.behind().await?.into_iter().filter(|behind| behind.records > 0);
        Ok(behind.map(|behind| (behind.writer, behind.reader, behind.records)).collect())
    }

    /// Returns the lag of each reader in each topic, with the first unread records.
    pub async fn behind(&self) -> anyhow::Result<Vec<Behind>> {
        let inner = self.0.clone();
        let behind = move || {
            let mut behind = Vec::new();
            for group in &inner.groups {
                for (writer, partitions) in &group.reads {
                    let committed = group.committed(*writer, &inner.prefix)?;
                    let ends = spans(&group.client, &writer.topic(&inner.prefix), partitions)?;
                    let (records, first) = left_of(&ends, &committed);
                    behind.push(Behind { writer: *writer, reader: group.reader, records, first });
                }
            }
            Ok(behind)
        };
        spawn_blocking(behind).await?
    }

    /// Returns when the oldest of these unread records was written; `None` if Kafka does not return it in time.
    pub async fn oldest(&self, behind: &Behind) -> anyhow::Result<Option<Timestamp>> {
        let (inner, topic, first) = (self.0.clone(), behind.writer.topic(&self.0.prefix), behind.first.clone());
        spawn_blocking(move || oldest::of(&inner.brokers, &topic, &first)).await?
    }

    /// Reads a topic from its beginning to where it ends now. Fails if there is no such topic.
    pub async fn read(&self, topic: String) -> anyhow::Result<Records> {
        let inner = self.0.clone();
        let found = spawn_blocking(move || {
            // Every mesh has a service that reads, and any client can query the ends of any topic.
            let client = &inner.groups[0].client;
            let spans = spans(client, &topic, &partitions(client, &topic)?)?;
            Ok::<_, anyhow::Error>((inner.brokers.clone(), topic, spans))
        });
        let (brokers, topic, spans) = found.await??;
        Ok(Records::read(brokers, topic, spans))
    }
}

impl Group {
    fn committed(&self, writer: Service, prefix: &str) -> anyhow::Result<Committed> {
        let mut queried = TopicPartitionList::new();
        for partition in self.reads.iter().filter(|(read, _)| *read == writer).flat_map(|(_, partitions)| partitions) {
            queried.add_partition(&writer.topic(prefix), *partition);
        }
        let answered = with_retry(|| self.client.committed_offsets(queried.clone(), READ_TIMEOUT))?;
        let mut committed = Committed::new();
        for element in answered.elements() {
            element.error()?;
            if let Offset::Offset(next) = element.offset() {
                committed.insert(element.partition(), next);
            }
        }
        Ok(committed)
    }
}

/// Returns the lag in a partition. A group without a committed offset begins at the first record.
fn left(span: Span, committed: &Committed) -> i64 {
    let next = committed.get(&span.partition).copied().unwrap_or(span.low).max(span.low);
    (span.high - next).max(0)
}

/// Returns the lag, and the first unread record in each partition.
fn left_of(ends: &[Span], committed: &Committed) -> (i64, Vec<(i32, i64)>) {
    let unread = ends.iter().map(|span| (span, left(*span, committed))).filter(|(_, count)| *count > 0);
    let unread: Vec<_> = unread.collect();
    let first = unread.iter().map(|(span, count)| (span.partition, span.high - count)).collect();
    (unread.iter().map(|(_, count)| count).sum(), first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_that_is_not_read_is_found_in_each_partition() {
        let ends = [
            Span { partition: 0, low: 0, high: 9 },
            Span { partition: 1, low: 4, high: 9 },
            Span { partition: 2, low: 0, high: 3 },
        ];
        let committed = Committed::from([(0, 7), (2, 3)]);
        assert_eq!(left_of(&ends, &committed), (7, vec![(0, 7), (1, 4)]));
        assert_eq!(left_of(&ends[2..], &committed), (0, Vec::new()));
    }

    #[test]
    fn what_was_removed_is_not_left_to_read() {
        let span = Span { partition: 3, low: 4, high: 9 };
        for (committed, unread) in [(9, 0), (7, 2), (2, 5)] {
            assert_eq!(left(span, &Committed::from([(3, committed)])), unread, "{committed}");
        }
        assert_eq!(left(span, &Committed::new()), 5);
        assert_eq!(left(Span { partition: 3, low: 9, high: 9 }, &Committed::new()), 0);
    }
}
