//! Reads a service's topics in batches, applies each batch, and then stores its offsets.

use crate::{
    Handler, Message, Progress,
    batch::{Applier, BATCH, Unapplied},
    client::Client,
    copies::Copies,
    gauges,
    letters::Letters,
    log_throttle::LogEvent,
    message::Unreadable,
    positions::Positions,
    recreated::{CHECK_INTERVAL, RecreationDetector},
    replay::Replay,
};
use futures_util::FutureExt;
use opentelemetry::{KeyValue, global, metrics::Counter};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use stampede_db::Database;
use stampede_vocab::{Linger, Service, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Most records that are read for one batch, including skipped types.
const MAX_READ: usize = 4 * BATCH;
/// A batch costs one transaction, whatever its size.
const LINGER: Linger =
    Linger { min: Duration::from_millis(5), per_message: Duration::from_micros(500), max: Duration::from_millis(50) };

/// `max.poll.interval.ms` by default: a consumer that applies nothing for so long loses its partitions to another one,
/// which may reach its database. Longer than a few attempts at a database that does not answer.
pub const MAX_POLL_INTERVAL_MS: u64 = 60_000;
/// `session.timeout.ms`. librdkafka accepts no shorter `max.poll.interval.ms`.
pub const SESSION_TIMEOUT_MS: u64 = 6_000;
/// Longest wait for the commit of an offset that goes back to the start. Nothing is read meanwhile.
const REWIND_TIMEOUT: Duration = Duration::from_secs(2);

/// The topics and message types of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    brokers: String,
    service: Service,
    group: String,
    topics: Vec<String>,
    message_types: HashSet<String>,
    max_poll_interval_ms: u64,
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
            max_poll_interval_ms: MAX_POLL_INTERVAL_MS,
        }
    }

    /// Gives the partitions of a consumer that applies nothing to another after so many milliseconds, at least
    /// [`SESSION_TIMEOUT_MS`].
    #[must_use]
    pub fn with_max_poll_interval_ms(self, max_poll_interval_ms: u64) -> Self {
        Self { max_poll_interval_ms, ..self }
    }
}

/// Applies the messages of some topics, in the order of each key, at least once.
pub struct Consumer<H> {
    db: Database,
    handler: Arc<H>,
    client: Arc<Client>,
    progress: Progress,
    letters: Letters,
    /// Woken when there are new dead letters.
    written: Arc<Notify>,
    applied: Counter<u64>,
    group: KeyValue,
    config: ConsumerConfig,
}

impl<H: Handler> Consumer<H> {
    /// Returns a consumer in its group. Fails if the Kafka client can't be made.
    pub fn new(config: ConsumerConfig, db: Database, handler: Arc<H>) -> Result<Self, KafkaError> {
        let progress = Progress::new();
        let client: StreamConsumer<Progress> = settings(&config).create_with_context(progress.clone())?;
        let client = Arc::new(Client::new(client));
        client.subscribe(&names(&config.topics))?;
        let written = Arc::new(Notify::new());
        let letters = Letters::new(db.clone(), config.service, &config.topics, written.clone());
        let applied = global::meter("stampede.inbox")
            .u64_counter("stampede_inbox_messages")
            .with_description("Messages that were applied or set aside, duplicates among them")
            .build();
        let group = KeyValue::new("group", config.group.clone());
        Ok(Self { db, handler, client, progress, letters, written, applied, group, config })
    }

    /// Returns its progress, for `/readyz`.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads until `stop`. Finishes the batch under way first, unless the database fails. Returns once it has left its
    /// group; dropped before that, it leaves in the background.
    pub async fn run(self, stop: CancellationToken) {
        let Self { db, handler, client, progress, letters, written, applied, group, config } = self;
        let copies = Copies::new(config.brokers.clone(), config.service);
        let replay = Replay::new(db.clone(), handler.clone(), copies, written);
        let _replay = AbortOnDropHandle::new(tokio::spawn(replay.run()));
        let measured = gauges::measure(db.clone(), progress.clone(), config.topics.clone());
        let _measured = AbortOnDropHandle::new(tokio::spawn(measured));
        let applier = Applier::new(db, handler, letters, (client.clone(), progress.clone()), stop.clone());
        let (detector, mut check) = (RecreationDetector::default(), interval(CHECK_INTERVAL));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reader =
            Reader { client: &client, applier, progress, config: &config, applied, group, detector, check };
        reader.run(&stop).await;
        drop(reader);
        // Commits what is stored and leaves the group, so that others take the partitions at once.
        client.unsubscribe();
        if let Some(client) = Arc::into_inner(client) {
            client.close().await;
        }
    }
}

fn names(topics: &[String]) -> Vec<&str> {
    topics.iter().map(String::as_str).collect()
}

fn settings(config: &ConsumerConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        // Offsets are stored here once a piece of a batch is applied. The client commits them in the background, and
        // when the consumer leaves: a commit after each batch would be a good part of the load on Kafka.
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string())
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", config.max_poll_interval_ms.to_string())
        // A topic that was missing is found by the next metadata refresh. The default is five minutes.
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        // Bounds the memory of a consumer that has fallen behind.
        .set("queued.max.messages.kbytes", "8192")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("statistics.interval.ms", gauges::GAUGE_INTERVAL.as_millis().to_string());
    settings
}

/// The loop of a consumer.
struct Reader<'c, H> {
    client: &'c Arc<Client>,
    applier: Applier<H>,
    progress: Progress,
    config: &'c ConsumerConfig,
    applied: Counter<u64>,
    group: KeyValue,
    detector: RecreationDetector,
    /// Ticks when the next check for recreated topics is due.
    check: Interval,
}

impl<'c, H: Handler> Reader<'c, H> {
    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let Some(first) = self.first(stop).await else { break };
            let drained = self.drain(first);
            self.detector.read(&drained.positions);
            let pause = LINGER.after(drained.batch.len());
            self.progress.started(drained.oldest.clone());
            match self.apply(drained).await {
                Ok(()) => {
                    self.progress.finished();
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
                Err(error @ (Unapplied::Lost | Unapplied::Newer)) => {
                    self.progress.abandoned();
                    self.join_anew(&error);
                }
                // Its offsets are not stored, so the next consumer reads the batch again.
                Err(Unapplied::Stopped) => break,
            }
        }
    }

    /// Leaves the group and joins it again: the next owner of a partition reads it from the last committed offset.
    fn join_anew(&self, why: &Unapplied) {
        tracing::warn!(error.cause = %why, "the batch is abandoned, joining the group again");
        self.client.unsubscribe();
        if let Err(error) = self.client.subscribe(&names(&self.config.topics)) {
            tracing::error!(error.cause = %error, "the consumer cannot join its group again");
        }
    }

    /// Applies the batch, and stores its offsets piece by piece.
    async fn apply(&mut self, drained: Drained) -> Result<(), Unapplied> {
        let Drained { batch, unreadable, positions, .. } = drained;
        let messages = batch.len() as u64;
        // First: the positions of the batch cover these records too.
        self.applier.set_aside_unreadable(&unreadable).await?;
        self.applier.apply(batch, &positions).await?;
        // Only now: a batch that is abandoned and read again is not counted twice.
        self.applied.add(messages, std::slice::from_ref(&self.group));
        Ok(())
    }

    /// Waits for the next record. Returns `None` once stopped.
    async fn first(&mut self, stop: &CancellationToken) -> Option<BorrowedMessage<'c>> {
        let client = self.client;
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.check.tick() => self.check_for_recreated().await,
                received = client.recv() => match received {
                    Ok(message) => return Some(message),
                    Err(error) => {
                        self.log(&error);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    /// Rewinds partitions that were recreated. Records that were read already are read again.
    async fn check_for_recreated(&mut self) {
        // A failed check is repeated soon.
        let Ok(recreated) = self.detector.check(self.client).await else { return };
        if recreated.is_empty() {
            return tracing::debug!("no topic was recreated");
        }
        let (client, places) = (self.client.clone(), recreated.clone());
        match timeout(REWIND_TIMEOUT, spawn_blocking(move || client.rewind(&places))).await {
            Ok(Ok(Ok(()))) => self.detector.forget(&recreated),
            Ok(Ok(Err(error))) => {
                tracing::warn!(error.cause = %error, "a topic was recreated, and cannot be rewound yet");
                return;
            }
            // Kafka does not answer, and the next check tries again; or the runtime shuts down.
            Err(_) | Ok(Err(_)) => return,
        }
        for (topic, partition) in &recreated {
            tracing::error!(
                messaging.topic = %topic,
                messaging.partition = *partition,
                "a topic was recreated while it was read: it is read from its start"
            );
        }
    }

    /// Logs a failure to read. The client goes on with its other partitions.
    fn log(&self, error: &KafkaError) {
        match self.progress.cannot_read() {
            LogEvent::Started => tracing::warn!(
                messaging.unread = self.progress.unread(),
                error.cause = %error,
                "consumer cannot read from Kafka, trying again"
            ),
            LogEvent::Ongoing(time) => tracing::error!(
                messaging.unread = self.progress.unread(),
                inbox.stands_s = time.as_secs(),
                error.cause = %error,
                "the consumer is stalled: it cannot read from Kafka, trying again"
            ),
            LogEvent::Suppressed => {}
        }
    }

    /// Reads the records that are already fetched after `first`, up to the limit of a batch: nothing is read while a
    /// batch is applied, and a consumer that does not poll in time loses its partitions. Of skipped types only the
    /// offset is kept.
    fn drain(&self, first: BorrowedMessage<'_>) -> Drained {
        let (mut batch, mut unreadable) = (Vec::new(), Vec::new());
        let (mut positions, mut oldest, mut read) = (Positions::default(), HashMap::new(), 0);
        let mut record = Some(first);
        while let Some(message) = record {
            let written_ms = message.timestamp().to_millis();
            positions.read(message.topic(), message.partition(), message.offset(), written_ms);
            if let Some(written_ms) = written_ms {
                let written = Timestamp::from_micros(written_ms.saturating_mul(1_000));
                let oldest = oldest.entry(message.topic().to_owned()).or_insert(written);
                *oldest = written.min(*oldest);
            }
            match Message::read(&message, &self.config.message_types) {
                Ok(message) => batch.extend(message),
                Err(message) => unreadable.push(*message),
            }
            read += 1;
            // Skipped records count too: a topic with nothing else would never fill a batch, and never store an offset.
            let full = batch.len() + unreadable.len() >= self.applier.limit() || read >= MAX_READ;
            record = if full { None } else { self.fetched() };
        }
        Drained { batch, unreadable, positions, oldest }
    }

    /// Returns the next record if the client has fetched it already.
    fn fetched(&self) -> Option<BorrowedMessage<'_>> {
        let received = self.client.recv().now_or_never()?;
        received.inspect_err(|error| self.log(error)).ok()
    }
}

/// The outcome of one read.
struct Drained {
    batch: Vec<Message>,
    unreadable: Vec<Unreadable>,
    /// The offsets to store once the batch is applied or set aside.
    positions: Positions,
    /// When the oldest record of each topic was written.
    oldest: HashMap<String, Timestamp>,
}
