//! Limits the number of connections, in all and for each address.
//!
//! At the limit the longest idle connections are closed for new ones, those without any request first. Busy connections
//! are never closed for new ones.

use super::{
    bounds::HttpBounds,
    life::{Life, Phase},
    metrics,
};
use crate::{offenders::Offenders, peer::Block};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Fraction of all connections that is closed at a time: to search for idle ones takes a moment.
const ROOM_SHARE: usize = 64;

/// Pause after a search that found no idle connection.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Connections {
    bounds: Arc<HttpBounds>,
    table: Mutex<Table>,
    offenders: Offenders,
}

struct Table {
    next_id: u64,
    open: HashMap<u64, (Arc<Life>, Option<Block>)>,
    by_block: HashMap<Block, usize>,
    next_search: Instant,
}

/// A permit for one connection, released on drop.
pub(super) struct Permit {
    pub(super) life: Arc<Life>,
    connections: Arc<Connections>,
    id: u64,
}

impl Connections {
    pub(super) fn new(bounds: Arc<HttpBounds>) -> Arc<Connections> {
        let table = Table { next_id: 0, open: HashMap::new(), by_block: HashMap::new(), next_search: Instant::now() };
        let listener = bounds.listener;
        let connections = Arc::new(Connections { bounds, table: Mutex::new(table), offenders: Offenders::default() });
        metrics::observe_open(listener, Arc::downgrade(&connections));
        connections
    }

    /// Returns the number of connections in each phase, in the order of [`Phase::ALL`].
    pub(super) fn by_phase(&self) -> [u64; Phase::ALL.len()] {
        // Nobody is admitted while the table is locked, so each is asked only after that.
        let lives: Vec<_> = self.table().open.values().map(|(life, _)| Arc::clone(life)).collect();
        let mut counts = [0; Phase::ALL.len()];
        for life in lives {
            counts[life.phase() as usize] += 1;
        }
        counts
    }

    /// Returns a permit for a connection from this address, or the name of the limit that it exceeds.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, &'static str> {
        let block = (!self.bounds.trusted_proxies.contain(address)).then(|| Block::of(address));
        let mut table = self.table();
        let (max, of_address) = (self.bounds.max_connections, self.bounds.max_connections_of_address);
        // Without effect if an address may have all connections: then idle ones are closed for its new ones too.
        if let Some(block) = block.filter(|block| of_address < max && table.of(*block) >= of_address) {
            drop(table);
            self.offenders.refused(block, "connections");
            return Err("address");
        }
        if table.open.len() >= max && !table.make_room(max) {
            return Err("full");
        }
        let life = Life::begin();
        let id = table.enter(Arc::clone(&life), block);
        drop(table);
        Ok(Permit { life, connections: Arc::clone(self), id })
    }

    /// No code panics while it has this lock.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&self, block: Block) -> usize {
        self.by_block.get(&block).copied().unwrap_or(0)
    }

    fn enter(&mut self, life: Arc<Life>, block: Option<Block>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.open.insert(id, (life, block));
        if let Some(block) = block {
            *self.by_block.entry(block).or_default() += 1;
        }
        id
    }

    /// Releases the permit, and its share of the limit of its address; `None` if it was released before.
    fn leave(&mut self, id: u64) -> Option<Arc<Life>> {
        let (life, block) = self.open.remove(&id)?;
        let Some(block) = block else { return Some(life) };
        if let Some(count) = self.by_block.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                self.by_block.remove(&block);
            }
        }
        Some(life)
    }

    /// Closes the longest idle connections; returns whether there were any.
    fn make_room(&mut self, max: usize) -> bool {
        let now = Instant::now();
        if now < self.next_search {
            return false;
        }
        let idle = self.open.iter().filter_map(|(id, (life, _))| life.idle().map(|idle| (idle, *id)));
        let mut idlest: Vec<((bool, Instant), u64)> = idle.collect();
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
            if let Some(life) = self.leave(*id) {
                life.cut.cancel();
            }
        }
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A connection that was closed for a new one has released its permit already.
        drop(self.connections.table().leave(self.id));
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
        let exchange = asked.life.begin_request(false);
        let third = connections.admit(from(3)).unwrap();
        assert!(silent.life.cut.is_cancelled() && !asked.life.cut.is_cancelled());
        let _busy = third.life.begin_request(false);
        assert_eq!(connections.admit(from(4)).err(), Some("full"));
        drop(exchange);
    }

    #[tokio::test]
    async fn the_silent_make_room_for_a_newcomer_from_an_address_that_may_have_all() {
        let connections = connections(2, 2);
        let silent = [1, 1].map(|last| connections.admit(from(last)).unwrap());
        let newcomer = connections.admit(from(1)).unwrap();
        assert!(silent[0].life.cut.is_cancelled(), "the one that has been silent for longest");
        assert!(!silent[1].life.cut.is_cancelled() && !newcomer.life.cut.is_cancelled());
    }

    #[tokio::test]
    async fn who_is_closed_for_a_newcomer_gives_the_share_of_its_address_back_at_once() {
        let connections = connections(3, 2);
        let silent = [1, 1, 2].map(|last| connections.admit(from(last)).unwrap());
        let _other = connections.admit(from(3)).unwrap();
        assert!(silent[0].life.cut.is_cancelled());
        let newcomer = connections.admit(from(1)).unwrap();
        drop(silent);
        assert_eq!(connections.table().of(Block::of(from(1))), 1, "nobody gives a place back twice");
        drop(newcomer);
        assert!(connections.table().by_block.len() == 1, "only the other one is left");
    }
}
