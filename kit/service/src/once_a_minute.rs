//! Tells which log lines are due, of those that would come again in each round of a sweep or a watch.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Shortest time between two lines about one thing.
const PAUSE: Duration = Duration::from_secs(60);
/// Most things that are remembered. When there are more, all are forgotten, and may be logged again.
const MAX_KNOWN: usize = 1_000;

/// Lets one line a minute pass about each thing, which `K` names.
#[derive(Debug)]
pub struct OnceAMinute<K>(Mutex<BTreeMap<K, Instant>>);

impl<K> OnceAMinute<K> {
    /// Returns one that has let nothing pass yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K> Default for OnceAMinute<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> OnceAMinute<K> {
    /// Returns whether a line about `key` is due, and counts it as written.
    pub fn is_due(&self, key: K) -> bool {
        // Only the `Ord` of keys can panic under this lock, so the map of a poisoned lock is consistent.
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if lines.get(&key).is_some_and(|last| now < *last + PAUSE) {
            return false;
        }
        if lines.len() >= MAX_KNOWN {
            lines.clear();
        }
        lines.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_let_pass_once_a_minute() {
        let lines = OnceAMinute::new();
        assert!(lines.is_due(1) && lines.is_due(2));
        advance(PAUSE / 2).await;
        assert!(!lines.is_due(1));
        advance(PAUSE / 2).await;
        assert!(lines.is_due(1) && !lines.is_due(1));
    }

    #[test]
    fn it_remembers_no_more_than_its_bound() {
        let lines = OnceAMinute::new();
        assert!((0..=MAX_KNOWN).all(|key| lines.is_due(key)));
        assert_eq!(lines.0.lock().unwrap().len(), 1);
    }
}
