//! Finds the replicas behind a name: each address that DNS has for it is probed as a replica of its own.
//!
//! The name is looked up every few seconds, and at once when a call could not connect. A lookup that fails changes
//! nothing: while DNS is away, the replicas that serve go on to be called.

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

/// How a URL begins that names many replicas, such as `dns:///order:7104`.
const SCHEME: &str = "dns:///";

/// Time between two lookups.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest time between two lookups, however many calls fail.
const LOOKUP_PAUSE: Duration = Duration::from_millis(250);

/// How long a lookup may take. The resolver itself may go on for longer, on a thread that nobody waits for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers in a row that an address has to be missing from before it is given up: a name server may leave some of many
/// out.
const MAX_MISSED: u32 = 3;

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 256;

/// The `host:port` that is to be looked up; `None` for a URL that names one replica.
pub(super) fn name_in(url: &str) -> Option<&str> {
    url.strip_prefix(SCHEME)
}

/// Asks the resolver of the system.
pub(super) async fn look_up(name: String) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host(name).await?.take(MAX_ADDRESSES).collect())
}

/// Keeps a probe at every address of the name, for as long as the task lives.
pub(super) async fn discover<F, Fut>(name: String, look_up: F, replicas: Replicas)
where
    F: Fn(String) -> Fut + Send + Sync,
    Fut: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
{
    let look_up_now = replicas.look_up_now.clone();
    let mut found = Found::none_yet(name, replicas);
    let mut fruitless = 0_u32;
    loop {
        // From here on, so that a call that finds nobody during the lookup is heard as well.
        let called = look_up_now.notified();
        let lookup = look_up(found.name.clone());
        let outcome = timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or_else(|late| Err(late.into()));
        match outcome {
            Ok(addresses) if !addresses.is_empty() => found.update(&addresses),
            Ok(_) => found.complain("the name has no addresses"),
            Err(error) => found.complain(&error.to_string()),
        }
        fruitless = if found.replicas.count() > 0 { 0 } else { fruitless.saturating_add(1) };
        sleep(LOOKUP_PAUSE).await;
        // That it is time is as good a reason as a call that found nobody.
        let _ = timeout(rest(fruitless), called).await;
    }
}

/// How long to wait for the next lookup: not for long while no replica is ready.
fn rest(fruitless: u32) -> Duration {
    match fruitless {
        0 => LOOKUP_INTERVAL,
        rounds => backoff_within(LOOKUP_PAUSE, LOOKUP_INTERVAL, rounds),
    }
}

/// The addresses of a name.
struct Found {
    name: String,
    replicas: Replicas,
    addresses: HashMap<SocketAddr, Address>,
    /// Whether the last lookup was of no use.
    failing: bool,
}

/// One address. Its probe ends with it, and takes its replica out.
struct Address {
    /// Answers in a row that it was missing from.
    missed: u32,
    _probe: AbortOnDropHandle<()>,
}

impl Found {
    fn none_yet(name: String, replicas: Replicas) -> Found {
        Found { name, replicas, addresses: HashMap::new(), failing: false }
    }

    /// Begins to probe what is new, and gives up what has been missing for long.
    fn update(&mut self, answer: &[SocketAddr]) {
        self.failing = false;
        for address in answer {
            match self.addresses.get_mut(address) {
                Some(known) => known.missed = 0,
                None => self.begin(*address),
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

    fn begin(&mut self, address: SocketAddr) {
        match endpoint(&format!("http://{address}")) {
            Ok(endpoint) => {
                tracing::info!(server.name = self.name, server.address = %address, "found a replica");
                let probe = AbortOnDropHandle::new(tokio::spawn(probe(endpoint, self.replicas.clone())));
                self.addresses.insert(address, Address { missed: 0, _probe: probe });
            }
            Err(error) => tracing::error!(error.cause = %error, "{address} cannot be called"),
        }
    }

    /// Says why a lookup was of no use, unless the one before was not either.
    fn complain(&mut self, cause: &str) {
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
        let mut found = Found::none_yet("test:1".to_owned(), Replicas::new());
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
