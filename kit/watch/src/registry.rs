//! The watchers and the newest value of each watched key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot, watch};

pub(crate) struct Registry<K, V> {
    entries: Mutex<HashMap<K, Entry<V>>>,
    registered: Notify,
}

struct Entry<V> {
    newest: watch::Sender<Option<V>>,
    newcomers: Vec<Newcomer>,
}

/// Notified when a load that started after the watcher registered was published. Otherwise a watcher could get a value
/// older than one that its caller has seen.
pub(crate) type Newcomer = oneshot::Sender<()>;

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Registry { entries: Mutex::default(), registered: Notify::new() }
    }
}

impl<K: Eq + Hash + Clone, V: PartialEq> Registry<K, V> {
    /// Adds a watcher. The first receiver is notified once the second has a value of a fresh load.
    pub(crate) fn register(&self, key: K) -> (oneshot::Receiver<()>, watch::Receiver<Option<V>>) {
        let (newcomer, first_load) = oneshot::channel();
        let mut entries = self.entries();
        let entry =
            entries.entry(key).or_insert_with(|| Entry { newest: watch::Sender::new(None), newcomers: Vec::new() });
        entry.newcomers.push(newcomer);
        let values = entry.newest.subscribe();
        drop(entries);
        self.registered.notify_one();
        (first_load, values)
    }

    /// Waits until there is a watcher.
    pub(crate) async fn watched(&self) {
        while self.entries().is_empty() {
            self.registered.notified().await;
        }
    }

    /// Removes keys without watchers. Returns the keys to load, and the watchers that wait for their first load.
    pub(crate) fn begin_load(&self) -> (Vec<K>, Vec<Newcomer>) {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.newest.receiver_count() > 0);
        let newcomers = entries.values_mut().flat_map(|entry| entry.newcomers.drain(..)).collect();
        (entries.keys().cloned().collect(), newcomers)
    }

    /// Returns the keys whose newest value has another version than this, or that have none yet.
    pub(crate) fn outdated(&self, versions: HashMap<K, i64>, version: fn(&V) -> i64) -> Vec<K> {
        let entries = self.entries();
        let at_hand = |key: &K| entries.get(key).and_then(|entry| entry.newest.borrow().as_ref().map(version));
        versions.into_iter().filter(|(key, newest)| at_hand(key) != Some(*newest)).map(|(key, _)| key).collect()
    }

    /// Publishes loaded values. Does not wake the watchers of unchanged values.
    pub(crate) fn publish(&self, values: HashMap<K, V>) {
        let entries = self.entries();
        for (key, value) in values {
            if let Some(entry) = entries.get(&key) {
                entry.newest.send_if_modified(|newest| replace_if_new(newest, value));
            }
        }
    }

    /// Only the `Eq` of keys and values can panic under this lock, so the map of a poisoned lock is consistent.
    fn entries(&self) -> MutexGuard<'_, HashMap<K, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn replace_if_new<V: PartialEq>(newest: &mut Option<V>, value: V) -> bool {
    let changed = newest.as_ref() != Some(&value);
    if changed {
        *newest = Some(value);
    }
    changed
}
