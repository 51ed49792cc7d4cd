//! A Kafka producer whose deliveries can be waited for.
//!
//! `FutureProducer` of `rdkafka` polls ten times a second and spins through the last millisecond of each poll: one
//! hundredth of a core for a producer with nothing to do. The thread here polls as events come, and else once a second.

use rdkafka::{
    ClientConfig, ClientContext,
    error::KafkaError,
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
};
use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Longest poll of the thread, which ends at most so long after the producer is dropped.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// The outcome of a record.
type Outcome = Result<(), KafkaError>;

/// Where the outcome of a record goes.
type Reply = Box<oneshot::Sender<Outcome>>;

/// A record to be sent. Those of one key go to one partition.
#[derive(Debug)]
pub struct Record<'r> {
    /// Topic that it goes to.
    pub topic: &'r str,
    /// Its key.
    pub key: Option<&'r [u8]>,
    /// Its payload.
    pub payload: Option<&'r [u8]>,
    /// Its headers.
    pub headers: OwnedHeaders,
}

/// Why a record is not known to be in Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// The client or the broker refused it.
    #[error(transparent)]
    Refused(#[from] KafkaError),
    /// It was not acknowledged in time. It may still be, unless it is purged.
    #[error("Kafka did not acknowledge it in time")]
    TimedOut,
}

/// A record on its way.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Outcome>);

impl Delivery {
    /// Returns once every replica in sync has the record. Fails if they have not by `deadline`.
    pub async fn acknowledged(self, deadline: Instant) -> Result<(), Undelivered> {
        match timeout_at(deadline, self.0).await {
            Ok(Ok(outcome)) => outcome.map_err(Undelivered::Refused),
            // The producer is gone.
            Ok(Err(_)) => Err(Undelivered::Refused(KafkaError::Canceled)),
            Err(_) => Err(Undelivered::TimedOut),
        }
    }
}

/// The producer, with a thread of its own that hands out what became of its records.
pub struct Producer {
    inner: Arc<BaseProducer<Deliveries>>,
}

impl Producer {
    /// Starts one for these brokers. Fails if the client cannot be made; Kafka itself need not be there yet.
    pub fn new(brokers: &str) -> Result<Self, KafkaError> {
        let inner = Arc::new(settings(brokers).create_with_context(Deliveries)?);
        let producer = Arc::downgrade(&inner);
        let started = thread::Builder::new().name("kafka deliveries".into()).spawn(move || hand_out(&producer));
        started.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { inner })
    }

    /// Queues a record behind those sent before. Fails, without a trace of it, if it cannot be queued.
    pub fn send(&self, record: Record<'_>) -> Result<Delivery, KafkaError> {
        let (reply, delivery) = oneshot::channel();
        let reply: Reply = Box::new(reply);
        let Record { topic, key, payload, headers } = record;
        let mut queued = BaseRecord::<[u8], [u8], Reply>::with_opaque_to(topic, reply).headers(headers);
        (queued.key, queued.payload) = (key, payload);
        self.inner.send(queued).map_err(|(error, _)| error)?;
        Ok(Delivery(delivery))
    }

    /// Gives up whatever is queued or on its way: the one way in which a record is.
    pub fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }
}

/// Each record once and in order, acknowledged by every replica in sync, and a bounded queue.
fn settings(brokers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The client gives up no record by itself: that would let a later one of its key overtake it. Who waits for a
        // delivery has a deadline, and purges.
        .set("message.timeout.ms", "0")
        // Long enough to queue a whole round of the relay: a request for each partition of it, not several.
        .set("linger.ms", "3")
        .set("compression.type", "none")
        // The hash of Kafka's own clients, so that every language finds the partition of a key.
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "20000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    settings
}

fn hand_out(producer: &Weak<BaseProducer<Deliveries>>) {
    while let Some(producer) = producer.upgrade() {
        producer.poll(POLL_TIMEOUT);
    }
}

/// Passes each outcome on to whoever waits for it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Reply;

    fn delivery(&self, outcome: &DeliveryResult<'_>, reply: Reply) {
        let outcome = outcome.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // Who went away does not want to know.
        drop(reply.send(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_no_broker_takes_is_given_up_by_who_waits_for_it() {
        // Nobody listens there.
        let producer = Producer::new("127.0.0.1:1").unwrap();
        let record =
            || Record { topic: "any", key: Some(b"k".as_slice()), payload: None, headers: OwnedHeaders::new() };
        let [first, second] = [record(), record()].map(|record| producer.send(record).unwrap());
        let soon = Instant::now() + Duration::from_millis(50);
        assert!(matches!(first.acknowledged(soon).await, Err(Undelivered::TimedOut)));
        producer.purge();
        let later = Instant::now() + Duration::from_secs(10);
        assert!(matches!(second.acknowledged(later).await, Err(Undelivered::Refused(_))));
    }
}
