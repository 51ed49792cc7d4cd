//! The relay of one schema, composed of its parts.

use crate::{
    keeper::Keeper,
    lease::NAME_PREFIX,
    purge::Purge,
    send::Sender,
    sending::Sending,
    shared::{Shared, View},
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

    /// Uses the row numbers of messages as their ids, if `row_ids`: consumers of the previous version need that.
    #[must_use]
    pub fn with_row_ids(self, row_ids: bool) -> Self {
        Self { row_ids, ..self }
    }
}

/// Handle of a relay: wakes it, and tells whether it is stalled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    woken: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Outbox {
    /// To be called after a commit that wrote messages, so that they go out at once.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Returns whether the relay of this process is stalled: for half a minute a round has not ended, or it could not
    /// renew its leases, or Kafka has acknowledged nothing of what waits; or its Kafka client had a fatal error and is
    /// being replaced.
    pub fn is_stalled(&self) -> bool {
        self.shared.is_stalled()
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
        let outbox = Outbox { woken: Arc::new(Notify::new()), shared: Arc::new(Shared::default()) };
        let (woken, shared) = (outbox.woken.clone(), outbox.shared.clone());
        let (tell, view) = watch::channel(View::none());
        let relay = Self {
            purge: Purge::new(db.clone(), view.clone()),
            keeper: Keeper::new(db.clone(), owner.clone(), topic.clone(), shared.clone(), tell),
            sending: Sending::new(db, owner, topic, sender, woken, shared, view),
        };
        Ok((outbox, relay))
    }

    /// Publishes until `stop`, then publishes what is left, releases the leases and returns.
    ///
    /// It is one future and spawns no tasks: a relay that is not polled loses its leases, and dropping it ends all of
    /// it.
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
