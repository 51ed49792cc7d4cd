//! Reads a service's topics in batches, applies each batch, and then stores its offsets.

use crate::{
    Handler, Message, Progress,
    batch::{Applier, BATCH, Unapplied},
    client::Client,
    copies::Copies,
    gauges,
    letters::Letters,
    loud::Telling,
    message::Unreadable,
    positions::Positions,
    remade::{LOOK_INTERVAL, Looks},
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

/// Most records that are read for it, those of types that the service skips among them.
const MAX_READ: usize = 4 * BATCH;
/// A batch is a transaction with its commit, for one message as for many.
const LINGER: Linger =
    Linger { min: Duration::from_millis(5), per_message: Duration::from_micros(500), max: Duration::from_millis(50) };

/// How long a consumer may apply nothing until its partitions go to another, by default: longer than a few tries at a
/// database that does not answer. That one may reach its server.
pub const MAX_POLL_INTERVAL_MS: u64 = 60_000;
/// How long a consumer may say nothing to Kafka. Kafka's client takes no shorter interval than this for the other.
pub const SESSION_TIMEOUT_MS: u64 = 6_000;
/// Longest wait until Kafka has noted that a partition is read from its start again. Nothing is read meanwhile.
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

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads until `stop`. Finishes the batch under way first, unless the server is at fault. Returns once it has left its
    /// group; dropped before that, it leaves it in the background.
    pub async fn run(self, stop: CancellationToken) {
        let Self { db, handler, client, progress, letters, written, applied, group, config } = self;
        let copies = Copies::new(config.brokers.clone(), config.service);
        let replay = Replay::new(db.clone(), handler.clone(), copies, written);
        let _replay = AbortOnDropHandle::new(tokio::spawn(replay.run()));
        let measured = gauges::measure(db.clone(), progress.clone(), config.topics.clone());
        let _measured = AbortOnDropHandle::new(tokio::spawn(measured));
        let applier = Applier::new(db, handler, letters, (client.clone(), progress.clone()), stop.clone());
        let (looks, mut look) = (Looks::default(), interval(LOOK_INTERVAL));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reader = Reader { client: &client, applier, progress, config: &config, applied, group, looks, look };
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
        // Offsets are stored here once a piece of a batch is applied. The client commits them in the background, and when
        // the consumer leaves: a commit after each batch would be a good part of the load on Kafka.
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string())
        .set("heartbeat.interval.ms", "1000")
        .set("max.poll.interval.ms", config.max_poll_interval_ms.to_string())
        // A topic that was away is read again from the next look at what there is. By default that is every five minutes.
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
    looks: Looks,
    /// When to look next whether a topic was made anew.
    look: Interval,
}

impl<'c, H: Handler> Reader<'c, H> {
    async fn run(&mut self, stop: &CancellationToken) {
        loop {
            let Some(first) = self.first(stop).await else { break };
            let drained = self.drain(first);
            self.looks.read(&drained.positions);
            let pause = LINGER.after(drained.batch.len());
            self.progress.begins(drained.oldest.clone());
            match self.apply(drained).await {
                Ok(()) => {
                    self.progress.ends();
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
                Err(error @ (Unapplied::Lost | Unapplied::Newer)) => {
                    self.progress.gives_up();
                    self.join_anew(&error);
                }
                // Its offsets are not stored, so the next consumer reads the batch again.
                Err(Unapplied::Stopped) => break,
            }
        }
    }

    /// Leaves the group and joins it again, so that whatever is not stored is read again by whoever has its partition.
    fn join_anew(&self, why: &Unapplied) {
        tracing::warn!(error.cause = %why, "the batch is given up, joining the group again");
        self.client.unsubscribe();
        if let Err(error) = self.client.subscribe(&names(&self.config.topics)) {
            tracing::error!(error.cause = %error, "the consumer cannot join its group again");
        }
    }

    /// Applies the batch, and stores its offsets piece by piece.
    async fn apply(&mut self, drained: Drained) -> Result<(), Unapplied> {
        let Drained { batch, unreadable, positions, .. } = drained;
        let messages = batch.len() as u64;
        // First, so that the positions are those of the messages alone.
        self.applier.set_aside_unreadable(&unreadable).await?;
        self.applier.apply(batch, &positions).await?;
        // Only now: one that reads the same batch again and again takes nothing.
        self.applied.add(messages, std::slice::from_ref(&self.group));
        Ok(())
    }

    /// Waits for the next record. Returns `None` once stopped.
    async fn first(&mut self, stop: &CancellationToken) -> Option<BorrowedMessage<'c>> {
        let client = self.client;
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.look.tick() => self.look_for_remade().await,
                received = client.recv() => match received {
                    Ok(message) => return Some(message),
                    Err(error) => {
                        self.tell(&error);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    /// Reads a partition from its start again that was made anew. What was read of it already comes again.
    async fn look_for_remade(&mut self) {
        // Who cannot ask now asks again soon.
        let Ok(remade) = self.looks.look(self.client).await else { return };
        if remade.is_empty() {
            return tracing::debug!("no topic was made anew");
        }
        let (client, places) = (self.client.clone(), remade.clone());
        match timeout(REWIND_TIMEOUT, spawn_blocking(move || client.rewind(&places))).await {
            Ok(Ok(Ok(()))) => self.looks.forget(&remade),
            Ok(Ok(Err(error))) => {
                tracing::warn!(error.cause = %error, "a topic was made anew, and cannot be read from its start yet");
                return;
            }
            // Kafka does not answer, and the next look finds the same; or the runtime ends.
            Err(_) | Ok(Err(_)) => return,
        }
        for (topic, partition) in &remade {
            tracing::error!(
                messaging.topic = %topic,
                messaging.partition = *partition,
                "a topic was made anew while it was read: it is read from its start"
            );
        }
    }

    /// The client goes on with the other partitions meanwhile.
    fn tell(&self, error: &KafkaError) {
        match self.progress.cannot_read() {
            Telling::Begun => tracing::warn!(
                messaging.unread = self.progress.unread(),
                error.cause = %error,
                "consumer cannot read from Kafka, trying again"
            ),
            Telling::Lasts(time) => tracing::error!(
                messaging.unread = self.progress.unread(),
                inbox.stands_s = time.as_secs(),
                error.cause = %error,
                "the consumer stands still: it cannot read from Kafka, trying again"
            ),
            Telling::Silent => {}
        }
    }

    /// Reads what is at hand behind `first`, without waiting, up to what is applied at a time: nothing is read
    /// meanwhile, and who reads nothing for long loses its partitions. Of messages of other types only the offset
    /// is kept: they have no effect that a repeat could double.
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
            // Skipped records count as well: a topic of nothing else would never fill a batch, and never store an
            // offset.
            let full = batch.len() + unreadable.len() >= self.applier.limit() || read >= MAX_READ;
            record = if full { None } else { self.at_hand() };
        }
        Drained { batch, unreadable, positions, oldest }
    }

    fn at_hand(&self) -> Option<BorrowedMessage<'_>> {
        let received = self.client.recv().now_or_never()?;
        received.inspect_err(|error| self.tell(error)).ok()
    }
}

/// The outcome of one read.
struct Drained {
    batch: Vec<Message>,
    unreadable: Vec<Unreadable>,
    /// The offsets to store once it is applied or set aside.
    positions: Positions,
    /// When the oldest record of each topic was written.
    oldest: HashMap<String, Timestamp>,
}
