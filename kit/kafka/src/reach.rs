//! Checks that Kafka can be reached, before a process becomes ready.

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::time::Duration;

/// Longest wait for one answer. The caller retries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why Kafka cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KafkaUnreachable {
    /// No broker answered.
    #[error("no broker at {brokers} answers: {cause}")]
    NoBroker {
        /// The brokers that were queried.
        brokers: String,
        /// The error of the client.
        cause: KafkaError,
    },
    /// A broker answered, but does not have the topic.
    #[error("Kafka at {brokers} has no topic {topic}: run `stampede prepare`")]
    NoTopic {
        /// The brokers that were queried.
        brokers: String,
        /// The topic that is missing.
        topic: String,
    },
    /// The check could not run.
    #[error("Kafka could not be checked: the process is going down")]
    NotChecked,
}

/// Queries the brokers once for `topic`.
pub async fn reach_kafka(brokers: &str, topic: &str) -> Result<(), KafkaUnreachable> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    // The client has no asynchronous way to fetch metadata.
    let check = tokio::task::spawn_blocking(move || query(brokers, topic));
    check.await.unwrap_or(Err(KafkaUnreachable::NotChecked))
}

fn query(brokers: String, topic: String) -> Result<(), KafkaUnreachable> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers).set("allow.auto.create.topics", "false");
    let metadata = config
        .create::<BaseConsumer>()
        .and_then(|client| client.fetch_metadata(Some(&topic), ANSWER_TIMEOUT))
        .map_err(|cause| KafkaUnreachable::NoBroker { brokers: brokers.clone(), cause })?;
    let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
    match metadata.topics().first().and_then(|topic| topic.error()) {
        Some(error) if RDKafkaErrorCode::from(error) == missing => Err(KafkaUnreachable::NoTopic { brokers, topic }),
        _ => Ok(()),
    }
}
