//! A Kafka producer whose deliveries can be waited for.
//!
//! `FutureProducer` of `rdkafka` polls ten times a second and spins through the last millisecond of each poll: one
//! hundredth of a core for a producer with nothing to do. The thread here polls as events come, and else once a second.

use rdkafka::{
    ClientConfig, ClientContext,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
};
use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// Longest sleep of the thread, which ends at most so long after the producer is dropped.
const POLL: Duration = Duration::from_secs(1);

/// Yields the delivery report of a record. An error of the channel means that the producer is gone.
pub type Delivery = oneshot::Receiver<Result<(), KafkaError>>;

/// A record to be queued.
pub type Record<'r> = BaseRecord<'r, str, [u8], Reply>;

/// Sends the delivery report of a record.
pub type Reply = Box<oneshot::Sender<Result<(), KafkaError>>>;

/// The producer, with a thread of its own that hands out delivery reports.
pub struct Producer {
    inner: Arc<BaseProducer<Deliveries>>,
}

impl Producer {
    /// Starts one. Fails if the settings are wrong; Kafka itself need not be there yet.
    pub fn new(settings: &ClientConfig) -> Result<Self, KafkaError> {
        let inner = Arc::new(settings.create_with_context(Deliveries)?);
        let producer = Arc::downgrade(&inner);
        let started = thread::Builder::new().name("kafka deliveries".into()).spawn(move || hand_out(&producer));
        started.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { inner })
    }

    /// Queues a record made by `record`. Fails, without a trace of it, if it cannot be queued.
    pub fn send<'r>(&self, record: impl FnOnce(Reply) -> Record<'r>) -> Result<Delivery, KafkaError> {
        let (reply, delivery) = oneshot::channel();
        self.inner.send(record(Box::new(reply))).map_err(|(error, _)| error)?;
        Ok(delivery)
    }

    /// Drops what is still queued or on its way.
    pub fn purge(&self) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
    }
}

fn hand_out(producer: &Weak<BaseProducer<Deliveries>>) {
    // A weak reference, taken anew for each poll: the thread must not keep the producer alive.
    while let Some(producer) = producer.upgrade() {
        producer.poll(POLL);
    }
}

/// Passes each delivery report on to the task that waits for it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Reply;

    fn delivery(&self, outcome: &DeliveryResult<'_>, reply: Reply) {
        let outcome = outcome.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // The receiver is gone if its round has timed out.
        drop(reply.send(outcome));
    }
}
