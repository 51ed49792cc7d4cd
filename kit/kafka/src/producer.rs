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
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// Longest poll of the thread, and so its longest life after the producer is dropped.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of a metadata query.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of a delivery.
type Outcome = Result<(), KafkaError>;

/// Channel for the result of a delivery.
type Reply = Box<oneshot::Sender<Outcome>>;

/// A record to send. Records of one key go to one partition.
#[derive(Debug)]
pub struct Record<'r> {
    /// Topic that it goes to.
    pub topic: &'r str,
    /// Its partition; `None` for that of its key.
    pub partition: Option<u32>,
    /// Its key.
    pub key: Option<&'r [u8]>,
    /// Its payload.
    pub payload: Option<&'r [u8]>,
    /// Its headers.
    pub headers: OwnedHeaders,
}

/// Why a record may not be in Kafka.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// The client or the broker refused it.
    #[error(transparent)]
    Refused(#[from] KafkaError),
    /// It was not acknowledged in time. It may still be, unless it is purged.
    #[error("Kafka did not acknowledge it in time")]
    TimedOut,
}

/// A record in flight. The future returns once all in-sync replicas have the record, or it was refused or purged;
/// however long that takes.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Outcome>);

impl Future for Delivery {
    type Output = Result<(), KafkaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        // The producer was dropped.
        Poll::Ready(outcome.unwrap_or(Err(KafkaError::Canceled)))
    }
}

impl Delivery {
    /// Returns once all in-sync replicas have the record. Fails if they do not by `deadline`.
    pub async fn acknowledged(self, deadline: Instant) -> Result<(), Undelivered> {
        match timeout_at(deadline, self).await {
            Ok(outcome) => outcome.map_err(Undelivered::Refused),
            Err(_) => Err(Undelivered::TimedOut),
        }
    }
}

/// A purge under way. The future returns once all records are purged. Dropping it does not stop the purge.
#[derive(Debug)]
pub struct Purging(oneshot::Receiver<()>);

impl Future for Purging {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(drop)
    }
}

/// The producer, with a thread that reports its deliveries.
pub struct Producer {
    // Dropped before the thread is stopped, which then holds the last reference: to close a client may take a while,
    // and must not block the caller.
    inner: Arc<BaseProducer<Deliveries>>,
    _closed: ClosedOnDrop,
}

/// Stops the thread of a producer.
struct ClosedOnDrop(Arc<AtomicBool>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Producer {
    /// Starts a producer for these brokers. Fails if the client cannot be made; Kafka need not be reachable yet.
    pub fn new(brokers: &str) -> Result<Self, KafkaError> {
        let inner: Arc<BaseProducer<Deliveries>> = Arc::new(settings(brokers).create_with_context(Deliveries)?);
        let closed = Arc::new(AtomicBool::new(false));
        let (producer, is_closed) = (inner.clone(), closed.clone());
        let started =
            thread::Builder::new().name("kafka deliveries".into()).spawn(move || hand_out(&producer, &is_closed));
        started.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { inner, _closed: ClosedOnDrop(closed) })
    }

    /// Queues a record behind those sent before. Fails if it cannot be queued, and drops it.
    pub fn send(&self, record: Record<'_>) -> Result<Delivery, KafkaError> {
        let (reply, delivery) = oneshot::channel();
        let reply: Reply = Box::new(reply);
        let Record { topic, partition, key, payload, headers } = record;
        let mut queued = BaseRecord::<[u8], [u8], Reply>::with_opaque_to(topic, reply).headers(headers);
        (queued.key, queued.payload) = (key, payload);
        // A number that is out of range is refused as an unknown partition.
        queued.partition = partition.map(|partition| i32::try_from(partition).unwrap_or(i32::MAX));
        self.inner.send(queued).map_err(|(error, _)| error)?;
        Ok(Delivery(delivery))
    }

    /// Drops all queued and in-flight records, which are never dropped otherwise. A record that is sent before the
    /// purge has ended may be dropped too.
    pub fn purge(&self) -> Purging {
        let all = PurgeConfig::default().queue().inflight();
        let (done, purging) = oneshot::channel();
        let producer = self.inner.clone();
        // A thread of its own: the purge waits for all threads of the client, and one of them may wait for a name
        // server.
        let started = thread::Builder::new().name("kafka purging".into()).spawn(move || {
            producer.purge(all);
            let _ = done.send(());
        });
        if started.is_err() {
            self.inner.purge(all);
        }
        Purging(purging)
    }

    /// Returns the fatal error of this producer, if any. It must then be replaced: the brokers have lost acknowledged
    /// records, so its sequence numbers do not match theirs any more.
    pub fn fatal_error(&self) -> Option<String> {
        self.inner.client().fatal_error().map(|(_, reason)| reason)
    }

    /// Returns the number of partitions of the topic; `None` if no broker answers within two seconds.
    pub async fn partitions(&self, topic: &str) -> Option<u32> {
        let (producer, name) = (self.inner.clone(), topic.to_owned());
        // The client has no asynchronous way to fetch metadata.
        let fetch = spawn_blocking(move || producer.client().fetch_metadata(Some(&name), METADATA_TIMEOUT).ok());
        let metadata = fetch.await.ok().flatten()?;
        let partitions = metadata.topics().first()?.partitions().len();
        u32::try_from(partitions).ok().filter(|partitions| *partitions > 0)
    }
}

/// An idempotent producer with acks from all in-sync replicas, and a bounded queue.
fn settings(brokers: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The client drops no record by itself: a later one of its key could then overtake it. The waiter for a
        // delivery decides on the time, and purges.
        .set("message.timeout.ms", "0")
        // Long enough to queue a whole round of the relay: one request for each partition, not several.
        .set("linger.ms", "3")
        .set("compression.type", "none")
        // The partitioner of Kafka's own clients, so that every language finds the partition of a key.
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "20000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    settings
}

fn hand_out(producer: &BaseProducer<Deliveries>, is_closed: &AtomicBool) {
    while !is_closed.load(Ordering::Acquire) {
        producer.poll(POLL_TIMEOUT);
    }
}

/// Sends each result to its waiter.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Reply;

    fn delivery(&self, outcome: &DeliveryResult<'_>, reply: Reply) {
        let outcome = outcome.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // The waiter may be gone.
        drop(reply.send(outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest time of what waits for nobody.
    const QUICK: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn what_no_broker_takes_is_given_up_by_who_waits_for_it() {
        // Nobody listens there.
        let producer = Producer::new("127.0.0.1:1").unwrap();
        let record =
            || Record { topic: "any", partition: None, key: Some(b"k"), payload: None, headers: OwnedHeaders::new() };
        let [first, second] = [record(), record()].map(|record| producer.send(record).unwrap());
        let soon = Instant::now() + Duration::from_millis(50);
        assert!(matches!(first.acknowledged(soon).await, Err(Undelivered::TimedOut)));
        timeout_at(Instant::now() + Duration::from_secs(10), producer.purge()).await.expect("it ends soon");
        let later = Instant::now() + Duration::from_secs(10);
        assert!(matches!(second.acknowledged(later).await, Err(Undelivered::Refused(_))));
    }

    #[tokio::test]
    async fn a_producer_that_is_dropped_ends_what_was_on_its_way_and_holds_nobody_up() {
        // The quickest of three counts: the machine may be busy with other tests.
        let mut took = Vec::new();
        while took.len() < 3 && took.last().is_none_or(|time| *time >= QUICK) {
            let producer = Producer::new("127.0.0.1:1").unwrap();
            let record =
                Record { topic: "any", partition: None, key: Some(b"k"), payload: None, headers: OwnedHeaders::new() };
            let delivery = producer.send(record).unwrap();
            let started = Instant::now();
            drop(producer);
            took.push(started.elapsed());
            assert!(delivery.await.is_err());
        }
        assert!(took.last().is_some_and(|time| *time < QUICK), "{took:?}");
    }

    #[tokio::test]
    async fn a_producer_without_a_broker_is_not_broken_for_good() {
        let producer = Producer::new("127.0.0.1:1").unwrap();
        assert_eq!(producer.fatal_error(), None);
        assert_eq!(producer.partitions("any").await, None);
    }
}
