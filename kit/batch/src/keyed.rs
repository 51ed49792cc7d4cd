//! A batcher for each key, so that a key whose batches are slow does not delay the others.

#[cfg(test)]
mod tests;

use crate::Batcher;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Batchers by key. Clones share them.
///
/// At most `max_keys` keys have a batcher of their own. Once there are so many, those that nobody uses are dropped. If
/// all are in use, the calls of further keys share one more batcher. So the number of batchers is bounded, and no key
/// is refused. A batch of the shared one may have calls of several keys, and a call of a key that leaves it for a
/// batcher of its own may overtake the key's earlier ones.
pub struct KeyedBatchers<K, Q, A> {
    max_keys: usize,
    make: Arc<dyn Fn() -> Batcher<Q, A> + Send + Sync>,
    by_key: Arc<Mutex<HashMap<K, Batcher<Q, A>>>>,
    shared: Batcher<Q, A>,
}

impl<K, Q, A> Clone for KeyedBatchers<K, Q, A> {
    fn clone(&self) -> Self {
        Self {
            max_keys: self.max_keys,
            make: self.make.clone(),
            by_key: self.by_key.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<K: Eq + Hash, Q: Send + 'static, A: Send + 'static> KeyedBatchers<K, Q, A> {
    /// Starts the shared batcher on the current tokio runtime. `make` creates it and the others, all of one config.
    pub fn new(max_keys: usize, make: impl Fn() -> Batcher<Q, A> + Send + Sync + 'static) -> Self {
        let shared = make();
        Self { max_keys, make: Arc::new(make), by_key: Arc::default(), shared }
    }

    /// Returns the batcher for the calls of this key. It is in use until it is dropped and its calls have ended.
    pub fn of(&self, key: K) -> Batcher<Q, A> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batcher) = by_key.get(&key) {
            return batcher.clone();
        }
        if by_key.len() >= self.max_keys {
            by_key.retain(|_, batcher| batcher.is_in_use());
        }
        if by_key.len() >= self.max_keys {
            return self.shared.clone();
        }
        by_key.entry(key).or_insert_with(|| (self.make)()).clone()
    }
}
