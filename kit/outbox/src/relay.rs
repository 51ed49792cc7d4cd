//! The relay of one schema: its parts put together.

use crate::{
    desk::{Desk, View},
    keeper::Keeper,
    lease::NAME_PREFIX,
    purge::Purge,
    send::Sender,
    sending::Sending,
};
use rdkafka::error::KafkaError;
use stampede_db::Database;
use stampede_vocab::Service;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The destination of a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    brokers: String,
    topic: String,
    source: String,
    row_ids: bool,
}

impl RelayConfig {
    /// Sends the messages of `service` to its topic at `brokers`.
    pub fn new(brokers: &str, topic_prefix: &str, service: Service) -> Self {
        Self {
            brokers: brokers.to_owned(),
            topic: service.topic(topic_prefix),
            source: service.source(),
            row_ids: false,
        }
    }

    /// Gives messages the numbers of their rows as ids, if `row_ids`: consumers of the version before read no other.
    #[must_use]
    pub fn with_row_ids(self, row_ids: bool) -> Self {
        Self { row_ids, ..self }
    }
}

/// Wakes the relay, and knows how it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    woken: Arc<Notify>,
    desk: Arc<Desk>,
}

impl Outbox {
    /// To be called after a commit that wrote messages, so that they go out at once.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Returns whether the relay of this process stands still: a round of it has not ended for half a minute, or its
    /// Kafka client is broken for good and is being replaced. A Kafka or a database that is away does not make it so.
    pub fn is_stalled(&self) -> bool {
        self.desk.is_stalled()
    }
}

/// Sends the outbox of one schema.
pub struct Relay {
    sending: Sending,
    keeper: Keeper,
    purge: Purge,
}

impl Relay {
    /// Returns the relay of this schema's outbox, and the handle that wakes it. Fails if the Kafka client can't be
    /// made.
    #[expect(clippy::disallowed_methods, reason = "each relay needs a name of its own; nothing depends on which")]
    pub fn new(config: RelayConfig, db: Database) -> Result<(Outbox, Self), KafkaError> {
        let RelayConfig { brokers, topic, source, row_ids } = config;
        let sender = Sender::new(brokers, topic.clone(), source, row_ids)?;
        let owner = format!("{NAME_PREFIX}{}", uuid::Uuid::now_v7());
        let outbox = Outbox { woken: Arc::new(Notify::new()), desk: Arc::new(Desk::default()) };
        let (woken, desk) = (outbox.woken.clone(), outbox.desk.clone());
        let (tell, view) = watch::channel(View::none());
        let relay = Self {
            purge: Purge::new(db.clone(), view.clone()),
            keeper: Keeper::new(db.clone(), owner.clone(), topic.clone(), desk.clone(), tell),
            sending: Sending::new(db, owner, topic, sender, woken, desk, view),
        };
        Ok((outbox, relay))
    }

    /// Publishes until `stop`, then publishes what is left, gives the leases back and returns.
    ///
    /// All of it is one future: a relay that is not run loses its leases, and one that is dropped is gone.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut sending, mut keeper, mut purge } = self;
        let halt = CancellationToken::new();
        let send = async {
            sending.run(&stop).await;
            // Only now: leases are needed until the last message is sent.
            halt.cancel();
        };
        tokio::join!(Box::pin(send), Box::pin(keeper.run(&halt)), Box::pin(purge.run(&halt)));
        keeper.leave().await;
    }
}
