//! The revoked logins, and the tasks that wait for a revocation.
//!
//! Each open stream of a buyer waits for the revocation of its login, and anybody may revoke their own as often as they
//! log in. The logins are sharded, so that a revocation wakes the streams of one shard, and not those of a whole crowd.

use stampede_lua::gate::Revocation;
use stampede_vocab::Timestamp;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};
use tokio::sync::watch;

const SHARDS: usize = 256;

/// A shard: its logins, each with the time at which its tokens have expired.
type Shard = watch::Sender<HashMap<String, Timestamp>>;

/// The revoked logins, sharded by a keyed hash that clients cannot predict.
pub struct Logins {
    shards: Vec<Shard>,
    hashes: RandomState,
}

impl Logins {
    pub fn none() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::new(HashMap::new())).collect(), hashes: RandomState::new() }
    }

    /// Returns whether this login is revoked.
    pub fn has(&self, login: &str) -> bool {
        self.shard(login).borrow().contains_key(login)
    }

    pub async fn wait_revoked(&self, login: &str) {
        // Fails only if the sender is dropped, which `self` owns.
        let _ = self.shard(login).subscribe().wait_for(|logins| logins.contains_key(login)).await;
    }

    /// Adds revocations, except those whose tokens have expired.
    pub fn insert(&self, revoked: Vec<Revocation>, now: Timestamp) {
        for Revocation { login, until } in revoked.into_iter().filter(|revoked| revoked.until > now) {
            self.shard(&login).send_if_modified(|logins| logins.insert(login, until).is_none());
        }
    }

    /// Removes the logins whose tokens have expired. No task waits for that.
    pub fn remove_expired(&self, now: Timestamp) {
        for shard in &self.shards {
            shard.send_if_modified(|logins| {
                logins.retain(|_, until| *until > now);
                false
            });
        }
    }

    fn shard(&self, login: &str) -> &Shard {
        let hash = self.hashes.hash_one(login);
        let [low, ..] = hash.to_le_bytes();
        &self.shards[usize::from(low) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn revoked(login: &str, until: i64) -> Vec<Revocation> {
        vec![Revocation { login: login.to_owned(), until: at(until) }]
    }

    #[tokio::test]
    async fn whoever_waits_for_a_login_learns_of_its_end() {
        let logins = Logins::none();
        let ends = async {
            tokio::task::yield_now().await;
            logins.insert(revoked("one", 20), at(10));
        };
        let both = async { tokio::join!(logins.wait_revoked("one"), ends) };
        timeout(Duration::from_secs(10), both).await.expect("it is notified");
        assert!(logins.has("one") && !logins.has("other"));
    }

    #[test]
    fn a_revocation_wakes_those_of_one_part_alone_and_again_nobody() {
        let logins = Logins::none();
        let mut shards: Vec<watch::Receiver<HashMap<String, Timestamp>>> =
            logins.shards.iter().map(Shard::subscribe).collect();
        let mut woken = || -> usize {
            let is_woken = |shard: &mut watch::Receiver<HashMap<String, Timestamp>>| {
                let is_woken = shard.has_changed().unwrap();
                shard.mark_unchanged();
                usize::from(is_woken)
            };
            shards.iter_mut().map(is_woken).sum()
        };
        logins.insert(revoked("one", 20), at(10));
        assert_eq!(woken(), 1);
        logins.insert(revoked("one", 20), at(10));
        assert_eq!(woken(), 0, "what is read again is no news");
    }

    #[test]
    fn what_has_expired_is_not_kept() {
        let logins = Logins::none();
        logins.insert(revoked("late", 10), at(10));
        assert!(!logins.has("late"));
        logins.insert(revoked("one", 20), at(10));
        logins.remove_expired(at(19));
        assert!(logins.has("one"));
        logins.remove_expired(at(20));
        assert!(!logins.has("one"));
    }
}
