//! The relay: reads the unsent messages of the partitions it leases, publishes them, and marks them as sent.

use crate::{
    PARTITIONS, backlog, lease,
    rows::{self, Unsent},
    send::Sender,
};
use opentelemetry::{KeyValue, global, metrics::Counter};
use rdkafka::error::KafkaError;
use stampede_db::{Database, DbError};
use stampede_vocab::{Linger, Service, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Messages of one round.
const ROUND: u32 = 1_000;
/// A round has a SELECT, requests to Kafka, a DELETE and wakes every reader, for one message as for many.
const LINGER: Linger =
    Linger { min: Duration::from_millis(10), per_message: Duration::from_millis(1), max: Duration::from_millis(100) };
/// Time between two renewals of the leases.
const LEASE_CHECK: Duration = Duration::from_millis(500);
/// Poll interval while other replicas are alive: their commits wake their own relay only, and may write into partitions
/// that this one leases.
const POLL_INTERVAL_WITH_OTHERS: Duration = Duration::from_millis(20);
/// Poll interval while there is no other replica: every commit wakes this relay.
const POLL_INTERVAL_ALONE: Duration = Duration::from_millis(250);
/// Longest wait for acknowledgements: a round must end well within the term of a lease.
const ACK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long messages are kept after they were written, for the audit and for an investigation. Unsent messages are kept
/// until they are sent.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The destination of a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    brokers: String,
    topic: String,
    source: String,
}

impl RelayConfig {
    /// Sends the messages of `service` to its topic at `brokers`.
    pub fn new(brokers: &str, topic_prefix: &str, service: Service) -> Self {
        Self { brokers: brokers.to_owned(), topic: service.topic(topic_prefix), source: service.source() }
    }
}

/// Wakes the relay. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    woken: Arc<Notify>,
}

impl Outbox {
    /// To be called after a commit that wrote messages, so that they go out at once.
    pub fn wake(&self) {
        self.woken.notify_one();
    }
}

/// Sends the outbox of one schema.
pub struct Relay {
    db: Database,
    sender: Sender,
    owner: String,
    woken: Arc<Notify>,
    sent: Counter<u64>,
    topic: KeyValue,
}

/// The leases as of the last renewal.
struct Leases {
    partitions: Vec<u16>,
    poll: Duration,
    check_at: Instant,
    /// Nothing is sent after this: the leases may have run out.
    valid_until: Instant,
}

/// The outcome of one round.
struct Round {
    /// Messages that were read.
    read: usize,
}

impl Round {
    /// Returns whether the outbox may have more unsent messages already.
    fn is_full(&self) -> bool {
        self.read >= ROUND as usize
    }
}

impl Relay {
    /// Returns the relay of this schema's outbox, and the handle that wakes it. Fails if the Kafka client can't be
    /// made.
    #[expect(clippy::disallowed_methods, reason = "each relay needs a name of its own; nothing depends on which")]
    pub fn new(config: RelayConfig, db: Database) -> Result<(Outbox, Self), KafkaError> {
        let woken = Arc::new(Notify::new());
        let topic = KeyValue::new("topic", config.topic.clone());
        let sent = global::meter("stampede.outbox")
            .u64_counter("stampede_outbox_messages_sent")
            .with_description("Messages acknowledged by Kafka")
            .build();
        let sender = Sender::new(&config.brokers, config.topic, config.source)?;
        let owner = uuid::Uuid::now_v7().to_string();
        Ok((Outbox { woken: woken.clone() }, Self { db, sender, owner, woken, sent, topic }))
    }

    /// Publishes until `stop`, then publishes what is left, gives the leases back and returns.
    pub async fn run(self, stop: CancellationToken) {
        let mut leases = Leases {
            partitions: Vec::new(),
            poll: POLL_INTERVAL_ALONE,
            check_at: Instant::now(),
            valid_until: Instant::now(),
        };
        let mut purge_at = Instant::now();
        let _backlog = AbortOnDropHandle::new(tokio::spawn(backlog::watch(self.db.clone())));
        while !stop.is_cancelled() {
            let round = self.round(&mut leases).await;
            if Instant::now() >= purge_at {
                purge_at = Instant::now() + self.purge().await;
            }
            // A backlog is worked off without a pause: the batches are as large as they get.
            if round.is_full() {
                continue;
            }
            // `Notify` keeps one permit, so a commit during this pause ends the wait below at once.
            stop.run_until_cancelled(sleep(LINGER.after(round.read))).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.woken.notified() => {}
                () = sleep_until((Instant::now() + leases.poll).min(leases.check_at)) => {}
            }
        }
        self.finish(leases).await;
    }

    async fn round(&self, leases: &mut Leases) -> Round {
        match self.try_round(leases).await {
            Ok(read) => Round { read },
            Err(error) => {
                tracing::warn!(messaging.topic = %self.topic.value, error.cause = %error, "relay cannot reach its outbox, trying again");
                sleep(Duration::from_millis(200)).await;
                Round { read: 0 }
            }
        }
    }

    /// Returns how many messages were read.
    async fn try_round(&self, leases: &mut Leases) -> Result<usize, DbError> {
        if Instant::now() >= leases.check_at {
            // Taken out first: if the renewal fails, this relay holds nothing and sends nothing until one succeeds.
            let before = std::mem::take(&mut leases.partitions);
            *leases = self.db.in_time("check_leases", self.check_leases(before)).await?;
        }
        // A round that could outlast the leases does not begin: it might send concurrently with their next holder.
        if leases.partitions.is_empty() || Instant::now() + ACK_TIMEOUT >= leases.valid_until {
            return Ok(0);
        }
        let messages = self.db.in_time("read_outbox", self.unsent(&leases.partitions)).await?;
        if !messages.is_empty() {
            self.send_and_mark(&messages).await?;
        }
        Ok(messages.len())
    }

    /// Returns the first unsent messages. The connection is back in the pool before Kafka is waited for.
    async fn unsent(&self, partitions: &[u16]) -> Result<Vec<Unsent>, DbError> {
        let mut conn = self.db.acquire().await?;
        rows::unsent(&mut conn, partitions, ROUND).await
    }

    async fn send_and_mark(&self, messages: &[Unsent]) -> Result<(), DbError> {
        let sent = self.sender.send(messages, ACK_TIMEOUT).await;
        if sent.len() < messages.len() {
            // Dropped here and read again by the next round: left in the queue, a record could be sent when this relay
            // has given its partition away.
            self.sender.purge();
            tracing::warn!(
                messaging.topic = %self.topic.value,
                outbox.unsent = messages.len() - sent.len(),
                "Kafka did not acknowledge in time, sending again"
            );
        }
        if sent.is_empty() {
            return Ok(());
        }
        // After the acknowledgement. A crash in between repeats messages, which the inboxes drop; the other order would
        // lose them.
        let marked = async {
            let mut conn = self.db.acquire().await?;
            rows::mark_sent(&mut conn, &sent).await
        };
        self.db.in_time("mark_sent", marked).await?;
        self.sent.add(sent.len() as u64, std::slice::from_ref(&self.topic));
        Ok(())
    }

    /// Renews the leases and takes or gives back partitions until this relay has its fair share of them.
    async fn check_leases(&self, before: Vec<u16>) -> Result<Leases, DbError> {
        // Before the statements: the database counts the term from a later instant, so this clock errs on the safe
        // side.
        let started = Instant::now();
        let mut conn = self.db.acquire().await?;
        lease::renew(&mut conn, &self.owner).await?;
        let alive = lease::relays_alive(&mut conn).await?.max(1);
        // Rounded up, so that all shares together cover every partition.
        let share = usize::from(PARTITIONS).div_ceil(usize::try_from(alive).unwrap_or(1));
        let mut partitions = lease::held(&mut conn, &self.owner).await?;
        if partitions.len() > share {
            // Between two rounds nothing is in flight, so the next holder cannot overtake this one.
            lease::give_back(&mut conn, &self.owner, &partitions.split_off(share)).await?;
        } else if partitions.len() < share {
            let wanted = u32::try_from(share - partitions.len()).expect("a share is at most all partitions");
            if lease::take(&mut conn, &self.owner, wanted).await? > 0 {
                // Read again: the UPDATE says how many rows it took, not which.
                partitions = lease::held(&mut conn, &self.owner).await?;
            }
        }
        if partitions != before {
            tracing::info!(messaging.topic = %self.topic.value, outbox.partitions = partitions.len(), outbox.relays = alive, "relay leases changed");
        }
        let term = Duration::from_micros(lease::TERM_US.unsigned_abs());
        let poll = if alive > 1 { POLL_INTERVAL_WITH_OTHERS } else { POLL_INTERVAL_ALONE };
        Ok(Leases { partitions, poll, check_at: started + LEASE_CHECK, valid_until: started + term })
    }

    /// Deletes one batch of old messages that were sent. Returns the time until the next batch.
    async fn purge(&self) -> Duration {
        const PURGE_BATCH: u32 = 5_000;
        let before_us = Timestamp::now().minus(RETENTION).micros();
        let purged = async {
            let mut conn = self.db.acquire().await?;
            rows::purge_sent(&mut conn, before_us, PURGE_BATCH).await
        };
        match self.db.in_time("purge_outbox", purged).await {
            Ok(0) => Duration::from_secs(60),
            Ok(_) => Duration::from_secs(1),
            Err(error) => {
                tracing::warn!(error.cause = %error, "sent messages could not be purged");
                Duration::from_secs(60)
            }
        }
    }

    /// Publishes what the last commits wrote, then gives the leases back.
    async fn finish(self, mut leases: Leases) {
        let flushed = timeout(ACK_TIMEOUT * 2, async { while self.round(&mut leases).await.is_full() {} }).await;
        if flushed.is_err() {
            tracing::warn!(messaging.topic = %self.topic.value, "stopped before everything was sent; the next relay sends it");
            // Nothing may be in flight when another relay takes the partitions over.
            self.sender.purge();
        }
        let left = async {
            let mut conn = self.db.acquire().await?;
            lease::give_back(&mut conn, &self.owner, &leases.partitions).await?;
            lease::leave(&mut conn, &self.owner).await
        };
        if let Err(error) = self.db.in_time("leave_outbox", left).await {
            tracing::warn!(error.cause = %error, "leases could not be given back, they will expire");
        }
    }
}
