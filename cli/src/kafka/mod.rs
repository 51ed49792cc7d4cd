//! Kafka as the operator's commands read it: the records of a topic, and the progress of each consumer group.

mod groups;
mod oldest;
mod topic;

pub use groups::{Behind, Groups};
pub use topic::{Carried, Records};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Timeout of a query to Kafka, and of the next message where there must be one.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause before a retry of a query.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest wait of one poll for a message.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The offsets of one partition.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    partition: i32,
    low: i64,
    high: i64,
}

/// Returns the next message; `None` if there is none for now, or the client has lost a connection, which it restores by
/// itself. Callers that loop have a deadline.
fn next(client: &BaseConsumer) -> Result<Option<BorrowedMessage<'_>>, KafkaError> {
    match client.poll(POLL_TIMEOUT).transpose() {
        Err(error) if is_transient(&error) => Ok(None),
        outcome => outcome,
    }
}

/// Retries a query after transient errors. Blocks, for at most twice [`READ_TIMEOUT`].
fn with_retry<T>(query: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let until = Instant::now() + READ_TIMEOUT;
    loop {
        match query() {
            Err(error) if is_transient(&error) && Instant::now() < until => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

/// Returns whether the error is transient: a lost connection, or a new partition leader or group coordinator.
fn is_transient(error: &KafkaError) -> bool {
    let Some(code) = error.rdkafka_error_code() else { return false };
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::NotLeaderForPartition
    )
}

/// Returns a client that commits nothing.
fn client(brokers: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    let client = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?;
    Ok(client)
}

/// Returns the partitions of a topic. Fails if there is no such topic.
fn partitions(client: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
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
    Ok(found.partitions().iter().map(|partition| partition.id()).collect())
}

/// Returns the offsets of each of these partitions.
fn spans(client: &BaseConsumer, topic: &str, partitions: &[i32]) -> anyhow::Result<Vec<Span>> {
    let span = |partition: &i32| {
        let (low, high) = with_retry(|| client.fetch_watermarks(topic, *partition, READ_TIMEOUT))?;
        Ok(Span { partition: *partition, low, high })
    };
    partitions.iter().map(span).collect()
}
