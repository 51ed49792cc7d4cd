//! A way to Kafka that a test can make stand still.

use crate::{Proxy, world::from_environment};
use anyhow::{Context, Result};
use std::{io::ErrorKind, time::Duration};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

/// The variables that name the door of Kafka, and the address to which it sends its clients.
const DOOR: &str = "STAMPEDE_TEST_KAFKA_DOOR";
const LINK: &str = "STAMPEDE_TEST_KAFKA_LINK";

/// Longest wait for the tests that have the link before.
const TURN_WITHIN: Duration = Duration::from_secs(120);
/// Time between two looks whether they are done.
const PAUSE: Duration = Duration::from_millis(50);

/// The link by which a client under test reaches Kafka, and it alone: other tests go on while it stands still. It ends
/// when it is dropped.
///
/// Kafka tells its clients where to go on, which is past any proxy that it does not know of. So the Kafka of tests has
/// one door more, which sends them to one address, and nobody listens there but a link.
pub struct KafkaLink(Proxy);

impl KafkaLink {
    /// Opens the link once no other test has it. Needs a tokio runtime. Fails if that takes two minutes.
    pub async fn open() -> Result<Self> {
        let (door, address) = (from_environment(DOOR)?, from_environment(LINK)?);
        Ok(Self(Proxy::to_server(&door, listen_at(&address).await?).await?))
    }

    /// Kafka's address by way of this link.
    pub fn brokers(&self) -> &str {
        self.0.url()
    }

    /// Lets Kafka fall silent, as on a machine that is paused: it takes connections, and answers nobody.
    pub fn freeze(&self) {
        self.0.freeze_now();
    }

    /// Lets it go on. What was sent to it meanwhile reaches it now.
    pub fn thaw(&self) {
        self.0.thaw();
    }
}

async fn listen_at(address: &str) -> Result<TcpListener> {
    let until = Instant::now() + TURN_WITHIN;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => sleep(PAUSE).await,
            bound => return bound.with_context(|| format!("cannot listen at {address}, the link to Kafka")),
        }
    }
}
