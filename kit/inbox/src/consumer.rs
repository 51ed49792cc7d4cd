//! Reads a service's topics in batches, applies each batch, and then stores its offsets.

use crate::{
    Handler, Message,
    batch::{Applier, Stopped},
    dead_letter::DeadLetters,
    gauges::{self, Lag},
    message::Unreadable,
    purge,
};
use futures_util::FutureExt;
use opentelemetry::{KeyValue, global, metrics::Counter};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use stampede_db::Database;
use stampede_vocab::{Linger, Service};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Most messages of one transaction.
const BATCH: usize = 500;
/// Most records that are read for it, those of types that the service skips among them.
const MAX_READ: usize = 4 * BATCH;
/// A batch is a transaction with its commit, for one message as for many.
const LINGER: Linger =
    Linger { min: Duration::from_millis(5), per_message: Duration::from_micros(500), max: Duration::from_millis(50) };

/// The topics and message types of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    brokers: String,
    service: Service,
    group: String,
    topics: Vec<String>,
    message_types: HashSet<String>,
}

impl ConsumerConfig {
    /// Reads at `brokers` the topics that `service` reads, as one of the group `<topic prefix>.<service>`. Messages of
    /// other types than these are skipped.
    pub fn new(
        brokers: &str,
        topic_prefix: &str,
        service: Service,
        message_types: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            brokers: brokers.to_owned(),
            service,
            group: format!("{topic_prefix}.{service}"),
            topics: service.reads().map(|writer| writer.topic(topic_prefix)).collect(),
            message_types: message_types.into_iter().collect(),
        }
    }
}

/// Applies the messages of some topics, each once.
pub struct Consumer<H> {
    client: StreamConsumer<Lag>,
    topics: Vec<String>,
    applier: Applier<H>,
    message_types: HashSet<String>,
    applied: Counter<u64>,
    group: KeyValue,
}

impl<H: Handler> Consumer<H> {
    /// Returns a consumer in its group. Fails if the Kafka client can't be made.
    pub fn new(config: ConsumerConfig, db: Database, handler: Arc<H>) -> Result<Self, KafkaError> {
        let client: StreamConsumer<Lag> = ClientConfig::new()
            .set("bootstrap.servers", &config.brokers)
            .set("group.id", &config.group)
            // Offsets are stored here once a batch is applied. The client commits them in the background, and when the
            // consumer leaves: a commit after each batch would be a good part of the load on Kafka.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            .set("max.poll.interval.ms", "60000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            // Bounds the memory of a consumer that has fallen behind.
            .set("queued.max.messages.kbytes", "8192")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("statistics.interval.ms", gauges::GAUGE_INTERVAL.as_millis().to_string())
            .create_with_context(Lag::new())?;
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        client.subscribe(&topics)?;
        let dead_letters = DeadLetters::new(config.brokers.clone(), config.service, &config.topics);
        let applied = global::meter("stampede.inbox")
            .u64_counter("stampede_inbox_messages")
            .with_description("Messages that were read, duplicates among them")
            .build();
        let group = KeyValue::new("group", config.group);
        let applier = Applier { db, handler, dead_letters, stop: CancellationToken::new() };
        let (topics, message_types) = (config.topics, config.message_types);
        Ok(Self { client, topics, applier, message_types, applied, group })
    }

    /// Reads until `stop`. Finishes the batch under way first, unless the database cannot be reached.
    pub async fn run(mut self, stop: CancellationToken) {
        self.applier.stop = stop.clone();
        let parked = gauges::watch_parked(self.applier.db.clone(), std::mem::take(&mut self.topics));
        let _parked = AbortOnDropHandle::new(tokio::spawn(parked));
        let _purge = AbortOnDropHandle::new(tokio::spawn(purge::run(self.applier.db.clone())));
        while let Some(first) = self.first(&stop).await {
            let drained = self.drain(first);
            let pause = LINGER.after(drained.batch.len());
            if let Err(Stopped) = self.apply(&drained.positions, drained.batch, &drained.unreadable).await {
                // Its offsets are not stored, so the next consumer reads the batch again.
                break;
            }
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        // Commits what is stored and leaves the group, so that others take the partitions at once.
        self.client.unsubscribe();
    }

    /// Applies the batch, then stores its offsets. Fails if the consumer is stopped before that.
    async fn apply(
        &self,
        positions: &TopicPartitionList,
        batch: Vec<Message>,
        unreadable: &[Unreadable],
    ) -> Result<(), Stopped> {
        self.applied.add(batch.len() as u64, std::slice::from_ref(&self.group));
        self.applier.apply(batch).await?;
        self.applier.set_aside_unreadable(unreadable).await?;
        if let Err(error) = self.client.store_offsets(positions) {
            // After a rebalance another consumer has the partition, and reads the batch again. The inbox knows its
            // messages, so they are dropped there.
            tracing::warn!(error.cause = %error, "offsets will not be committed");
        }
        Ok(())
    }

    /// Waits for the next record. Returns `None` once stopped.
    async fn first(&self, stop: &CancellationToken) -> Option<BorrowedMessage<'_>> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                received = self.client.recv() => match received {
                    Ok(message) => return Some(message),
                    Err(error) => {
                        tracing::warn!(error.cause = %error, "consumer cannot read from Kafka, trying again");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    /// Reads what is at hand behind `first`, up to a batch, without waiting. Of messages of other types only the offset
    /// is kept: they have no effect that a repeat could double.
    fn drain(&self, first: BorrowedMessage<'_>) -> Drained {
        let (mut batch, mut unreadable) = (Vec::new(), Vec::new());
        let (mut next, mut read) = (HashMap::new(), 0);
        let mut record = Some(first);
        while let Some(message) = record {
            // The position of a partition is the offset to read next, not the last one that was read.
            next.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
            match Message::read(&message, &self.message_types) {
                Ok(message) => batch.extend(message),
                Err(message) => unreadable.push(*message),
            }
            read += 1;
            // Skipped records count as well: a topic of nothing else would never fill a batch, and never store an
            // offset.
            let full = batch.len() + unreadable.len() >= BATCH || read >= MAX_READ;
            record = if full { None } else { self.client.recv().now_or_never().and_then(Result::ok) };
        }
        let mut positions = TopicPartitionList::with_capacity(next.len());
        for ((topic, partition), offset) in next {
            positions
                .add_partition_offset(&topic, partition, Offset::Offset(offset))
                .expect("an offset that was read is valid");
        }
        Drained { batch, unreadable, positions }
    }
}

/// The outcome of one read.
struct Drained {
    batch: Vec<Message>,
    unreadable: Vec<Unreadable>,
    /// The offsets to store once all of it is applied or set aside.
    positions: TopicPartitionList,
}
