//! A proxied link to Kafka that a test can freeze.

use crate::{Proxy, world::from_environment};
use anyhow::{Context, Result};
use std::{io::ErrorKind, time::Duration};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

/// The variables with the listener of Kafka for the link, and the address that it advertises.
const LISTENER: &str = "STAMPEDE_TEST_KAFKA_LISTENER";
const LINK: &str = "STAMPEDE_TEST_KAFKA_LINK";

/// Longest wait for other tests that use the link.
const TURN_TIMEOUT: Duration = Duration::from_secs(300);
/// Time between two attempts to bind its address.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A proxy between the clients of one test and Kafka: other tests are not affected while it is frozen. Its connections
/// end when it is dropped.
///
/// A Kafka client connects to the advertised addresses of the brokers, which bypasses any other proxy. So the Kafka of
/// tests has one more listener, which advertises one fixed address, and only a link listens there.
pub struct KafkaLink(Proxy);

impl KafkaLink {
    /// Opens the link once no other test has it. Needs a tokio runtime. Fails if that takes five minutes.
    pub async fn open() -> Result<Self> {
        let (listener, address) = (from_environment(LISTENER)?, from_environment(LINK)?);
        Ok(Self(Proxy::to_server(&listener, listen_at(&address).await?).await?))
    }

    /// Returns the bootstrap address of Kafka through this link.
    pub fn brokers(&self) -> &str {
        self.0.url()
    }

    /// Freezes the link: Kafka accepts connections and answers nobody, as on a paused machine.
    pub fn freeze(&self) {
        self.0.freeze_now();
    }

    /// Delays everything by so long from now on, as [`Proxy::slow_down`] does.
    pub fn slow_down(&self, delay: Duration) {
        self.0.slow_down(delay);
    }

    /// Continues it. What was sent meanwhile is delivered now.
    pub fn thaw(&self) {
        self.0.thaw();
    }
}

async fn listen_at(address: &str) -> Result<TcpListener> {
    let until = Instant::now() + TURN_TIMEOUT;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => sleep(RETRY_INTERVAL).await,
            bound => return bound.with_context(|| format!("cannot listen at {address}, the link to Kafka")),
        }
    }
}
