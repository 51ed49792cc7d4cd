//! Queues messages at the producer, and returns a future for the outcome of each.

use crate::{headers, rows::Row};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use stampede_kafka::{Delivery, Producer, Purging, Record};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// Time between two metadata requests for the number of partitions of the topic, and after a failed one or a refused
/// message.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);
const COUNT_RETRY: Duration = Duration::from_millis(200);

/// Sends in order, with `acks=all`.
///
/// It chooses the partition of each message itself, by the hash of Kafka's own clients, so that the flow control counts
/// the partition that the message really goes to, even while partitions are added.
pub struct Sender {
    producer: Arc<Producer>,
    /// Number of partitions of the topic; 0 until a broker has answered.
    count: watch::Sender<u32>,
    counting: Option<AbortOnDropHandle<()>>,
    /// Woken when a message was refused: the topic may have been recreated with fewer partitions.
    recount: Arc<Notify>,
    brokers: String,
    topic: String,
    source: String,
    row_ids: bool,
}

/// Why a message was not queued.
#[derive(Debug, PartialEq, Eq)]
pub enum Unqueued {
    /// There is no room for any now.
    Full,
    /// This one was refused.
    Refused,
}

/// A message in flight.
pub struct Flight {
    /// Identifies this delivery.
    pub ticket: u64,
    /// Its outcome.
    pub delivery: Delivery,
}

impl Future for Flight {
    type Output = (u64, Result<(), KafkaError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.delivery).poll(context));
        Poll::Ready((self.ticket, outcome))
    }
}

impl Sender {
    /// Fails if the Kafka client can't be made.
    pub fn new(brokers: String, topic: String, source: String, row_ids: bool) -> Result<Self, KafkaError> {
        let producer = Arc::new(Producer::new(&brokers)?);
        let (count, recount) = (watch::Sender::new(0), Arc::new(Notify::new()));
        Ok(Self { producer, count, counting: None, recount, brokers, topic, source, row_ids })
    }

    /// Returns the number of partitions of the topic; 0 until a broker has answered.
    pub fn partitions(&self) -> watch::Receiver<u32> {
        self.count.subscribe()
    }

    /// Starts the task that counts the partitions of the topic.
    pub fn count_partitions(&mut self) {
        let counting = count(self.producer.clone(), self.topic.clone(), self.count.clone(), self.recount.clone());
        self.counting = Some(AbortOnDropHandle::new(tokio::spawn(counting)));
    }

    /// Drops everything that is queued or in flight, so that none of it is sent once another relay has the partition.
    /// Nothing may be queued until that is done.
    pub fn purge(&self) -> Purging {
        self.producer.purge()
    }

    /// Returns the fatal error of this producer, if it has one.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer.fatal_error()
    }

    /// Replaces the producer, which drops everything in flight. Fails, and changes nothing, if the client can't be
    /// created.
    pub fn replace(&mut self) -> Result<(), KafkaError> {
        self.producer = Arc::new(Producer::new(&self.brokers)?);
        self.count_partitions();
        Ok(())
    }

    /// Queues a message for a partition of the topic.
    pub fn enqueue(&self, message: &Row, partition: u32) -> Result<Delivery, Unqueued> {
        let Some(payload) = &message.payload else {
            // Payloads are only read of partitions that this relay leases. It would be sent as an empty message.
            tracing::error!(outbox.id = message.id, messaging.topic = %self.topic, "message was read without its payload, trying again");
            return Err(Unqueued::Refused);
        };
        let record = Record {
            topic: &self.topic,
            partition: Some(partition),
            key: Some(message.aggregate_id.as_bytes()),
            payload: Some(payload),
            headers: headers::of(message, &self.source, self.row_ids),
        };
        self.producer.send(record).map_err(|error| {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                return Unqueued::Full;
            }
            tracing::error!(outbox.id = message.id, messaging.topic = %self.topic, error.cause = %error, "message cannot be sent, trying again");
            self.recount.notify_one();
            Unqueued::Refused
        })
    }
}

async fn count(producer: Arc<Producer>, topic: String, count: watch::Sender<u32>, recount: Arc<Notify>) {
    loop {
        if let Some(partitions) = producer.partitions(&topic).await {
            count.send_if_modified(|known| std::mem::replace(known, partitions) != partitions);
            // A time-out is the usual case.
            let _ = timeout(COUNT_INTERVAL, recount.notified()).await;
        }
        sleep(COUNT_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(payload: Option<Vec<u8>>) -> Row {
        Row {
            id: 1,
            partition_no: 0,
            aggregate_id: "evt_1".to_owned(),
            aggregate_version: 1,
            message_type: "stampede.message.v1.EventOpened".to_owned(),
            payload,
            traceparent: None,
            message_id: None,
            created_us: 0,
        }
    }

    #[tokio::test]
    async fn a_message_without_its_payload_is_not_sent_and_an_empty_one_is() {
        // No broker listens there.
        let sender = Sender::new("127.0.0.1:1".to_owned(), "any".to_owned(), "/any".to_owned(), false).unwrap();
        assert_eq!(sender.enqueue(&row(None), 0).err(), Some(Unqueued::Refused));
        assert!(sender.enqueue(&row(Some(Vec::new())), 0).is_ok());
    }
}
