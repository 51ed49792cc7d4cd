//! The places of connections: so many in all, so many of one address.
//!
//! When all are taken the idlest make room, those without any request first. Who is busy is never closed for a
//! newcomer.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{bounds::HttpBounds, life::Life};
use crate::peer::Block;

/// Part of all connections that is closed at a time when there is no room: to look for them takes a moment.
const ROOM_SHARE: usize = 64;

/// Pause after a search that found nobody to close.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a server.
pub(super) struct Connections {
    bounds: Arc<HttpBounds>,
    table: Mutex<Table>,
}

struct Table {
    next_id: u64,
    lives: HashMap<u64, Arc<Life>>,
    by_block: HashMap<Block, usize>,
    next_search: Instant,
}

/// A place, held for as long as this is.
pub(super) struct Place {
    pub(super) life: Arc<Life>,
    connections: Arc<Connections>,
    id: u64,
    block: Option<Block>,
}

impl Connections {
    pub(super) fn new(bounds: Arc<HttpBounds>) -> Arc<Connections> {
        let table = Table { next_id: 0, lives: HashMap::new(), by_block: HashMap::new(), next_search: Instant::now() };
        Arc::new(Connections { bounds, table: Mutex::new(table) })
    }

    /// A place for a connection from this address; or the name of the bound that leaves none.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let block = (!self.bounds.trusted_proxies.contain(address)).then(|| Block::of(address));
        let mut table = self.table();
        if block.is_some_and(|block| table.of(block) >= self.bounds.max_connections_of_address) {
            return Err("address");
        }
        if table.lives.len() >= self.bounds.max_connections && !table.make_room(self.bounds.max_connections) {
            return Err("full");
        }
        let (id, life) = (table.next_id, Life::begin());
        table.next_id += 1;
        table.lives.insert(id, Arc::clone(&life));
        if let Some(block) = block {
            *table.by_block.entry(block).or_default() += 1;
        }
        drop(table);
        Ok(Place { life, connections: Arc::clone(self), id, block })
    }

    /// Nothing under this lock can panic.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&self, block: Block) -> usize {
        self.by_block.get(&block).copied().unwrap_or(0)
    }

    /// Closes the idlest; returns whether there were any.
    fn make_room(&mut self, max: usize) -> bool {
        let now = Instant::now();
        if now < self.next_search {
            return false;
        }
        let quiet = self.lives.iter().filter_map(|(id, life)| life.quiet().map(|quiet| (quiet, *id)));
        let mut idlest: Vec<((bool, Instant), u64)> = quiet.collect();
        let wanted = (max / ROOM_SHARE).max(1);
        if idlest.len() > wanted {
            idlest.select_nth_unstable(wanted);
            idlest.truncate(wanted);
        }
        if idlest.is_empty() {
            self.next_search = now + SEARCH_PAUSE;
            return false;
        }
        for (_, id) in &idlest {
            if let Some(life) = self.lives.remove(id) {
                life.cut.cancel();
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.lives.remove(&self.id);
        let Some(block) = self.block else { return };
        if let Some(count) = table.by_block.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                table.by_block.remove(&block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Network;

    fn connections(max: usize, of_address: usize) -> Arc<Connections> {
        Connections::new(Arc::new(HttpBounds {
            max_connections: max,
            max_connections_of_address: of_address,
            trusted_proxies: vec!["10.0.0.1".parse::<Network>().unwrap()].into(),
            ..HttpBounds::default()
        }))
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn one_address_has_its_share_and_a_trusted_proxy_has_all() {
        let connections = connections(8, 2);
        let held = [connections.admit(from(1)), connections.admit(from(1))];
        assert_eq!(connections.admit(from(1)).err(), Some("address"));
        assert!(connections.admit(from(2)).is_ok());
        drop(held);
        assert!(connections.admit(from(1)).is_ok());
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let places: Vec<_> = (0..5).map(|_| connections.admit(proxy)).collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_who_never_asked_and_not_of_who_is_busy() {
        let connections = connections(2, 9);
        let (asked, silent) = (connections.admit(from(1)).unwrap(), connections.admit(from(2)).unwrap());
        let exchange = asked.life.ask(false);
        let third = connections.admit(from(3)).unwrap();
        assert!(silent.life.cut.is_cancelled() && !asked.life.cut.is_cancelled());
        let _busy = third.life.ask(false);
        assert_eq!(connections.admit(from(4)).err(), Some("full"));
        drop(exchange);
    }
}
