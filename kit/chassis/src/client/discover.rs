//! Discovers replicas by DNS: each address of a name is probed as a replica of its own.
//!
//! The name is looked up every few seconds, and at once when a call could not connect. A failed lookup changes nothing:
//! while DNS is away, calls go on to the known replicas.

use super::{
    probe::probe,
    replicas::{Replicas, endpoint},
};
use stampede_vocab::backoff_within;
use std::{collections::HashMap, future::Future, io, net::SocketAddr, time::Duration};
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// Scheme of a URL that names many replicas, such as `dns:///order:7104`.
const SCHEME: &str = "dns:///";

const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time between two lookups, however many calls fail.
const LOOKUP_PAUSE: Duration = Duration::from_millis(250);

/// Longest time of a lookup. The resolver itself may go on for longer, on a thread that nobody waits for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Consecutive answers without an address before it is removed: a name server may leave some of many out.
const MAX_MISSED: u32 = 3;

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 256;

/// Returns the `host:port` to look up; `None` for a URL that names one replica.
pub(super) fn name_in(url: &str) -> Option<&str> {
    url.strip_prefix(SCHEME)
}

/// Asks the resolver of the system.
pub(super) async fn look_up(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host(name).await?.take(MAX_ADDRESSES).collect())
}

/// Looks the name up and runs a probe for each of its addresses, for as long as the task lives.
pub(super) async fn discover<F, Fut>(name: String, look_up: F, replicas: Replicas)
where
    F: Fn(String) -> Fut + Send + Sync,
    Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
{
    let look_up_now = replicas.look_up_now.clone();
    let mut found = Discovery::new(name, replicas);
    let mut failed_lookups = 0_u32;
    loop {
        // Registered before the lookup, so that a call that finds no replica meanwhile wakes the loop too.
        let called = look_up_now.notified();
        let lookup = look_up(found.name.clone());
        let outcome = timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or_else(|late| Err(late.into()));
        match outcome {
            Ok(addresses) if !addresses.is_empty() => found.update(&addresses),
            Ok(_) => found.log_failure("the name has no addresses"),
            Err(error) => found.log_failure(&error.to_string()),
        }
        failed_lookups = if found.replicas.count() > 0 { 0 } else { failed_lookups.saturating_add(1) };
        sleep(LOOKUP_PAUSE).await;
        // Either ends the wait: the time, or a call that found no replica.
        let _ = timeout(delay(failed_lookups), called).await;
    }
}

/// Returns the delay until the next lookup: a back-off while no replica is ready.
fn delay(failed_lookups: u32) -> Duration {
    match failed_lookups {
        0 => LOOKUP_INTERVAL,
        rounds => backoff_within(LOOKUP_PAUSE, LOOKUP_INTERVAL, rounds),
    }
}

/// The addresses that were found for a name.
struct Discovery {
    name: String,
    replicas: Replicas,
    addresses: HashMap<SocketAddr, Address>,
    /// Whether the last lookup failed.
    failing: bool,
}

/// One address. Dropping it ends its probe, which removes its replica.
struct Address {
    /// Consecutive answers without it.
    missed: u32,
    _probe: AbortOnDropHandle<()>,
}

impl Discovery {
    fn new(name: String, replicas: Replicas) -> Discovery {
        Discovery { name, replicas, addresses: HashMap::new(), failing: false }
    }

    /// Starts a probe for each new address, and drops addresses that were missing several times in a row.
    fn update(&mut self, answer: &[SocketAddr]) {
        self.failing = false;
        for address in answer {
            match self.addresses.get_mut(address) {
                Some(known) => known.missed = 0,
                None => self.start_probe(*address),
            }
        }
        let name = &self.name;
        self.addresses.retain(|address, known| {
            if !answer.contains(address) {
                known.missed += 1;
            }
            let stays = known.missed < MAX_MISSED;
            if !stays {
                tracing::info!(server.name = name, server.address = %address, "a replica has left the name");
            }
            stays
        });
    }

    fn start_probe(&mut self, address: SocketAddr) {
        match endpoint(&format!("http://{address}")) {
            Ok(endpoint) => {
                tracing::info!(server.name = self.name, server.address = %address, "found a replica");
                let probe = AbortOnDropHandle::new(tokio::spawn(probe(endpoint, self.replicas.clone())));
                self.addresses.insert(address, Address { missed: 0, _probe: probe });
            }
            Err(error) => {
                tracing::error!(server.address = %address, error.cause = %error, "a replica cannot be called");
            }
        }
    }

    /// Logs the first of several failed lookups in a row.
    fn log_failure(&mut self, cause: &str) {
        if !self.failing {
            tracing::warn!(server.name = self.name, error.cause = cause, "cannot look up replicas");
        }
        self.failing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_name_is_told_from_a_url() {
        assert_eq!(name_in("dns:///order:7104"), Some("order:7104"));
        assert_eq!(name_in("http://order:7104"), None);
    }

    #[tokio::test]
    async fn an_address_is_given_up_when_it_is_missing_from_several_answers_in_a_row() {
        let mut found = Discovery::new("test:1".to_owned(), Replicas::new());
        let (stays, leaves) = (address(1), address(2));
        found.update(&[stays, leaves]);
        for answer in [&[stays][..], &[stays], &[stays, leaves], &[stays], &[stays]] {
            found.update(answer);
            assert_eq!(found.addresses.len(), 2, "once it was back");
        }
        found.update(&[stays]);
        assert_eq!(found.addresses.keys().collect::<Vec<_>>(), [&stays]);
    }

    #[tokio::test]
    async fn the_system_knows_the_addresses_of_a_name() {
        let addresses = look_up("localhost:7104".to_owned()).await.unwrap();
        assert!(addresses.iter().all(|address| address.port() == 7104 && address.ip().is_loopback()), "{addresses:?}");
        assert!(!addresses.is_empty());
        assert!(look_up("no port".to_owned()).await.is_err());
    }
}
