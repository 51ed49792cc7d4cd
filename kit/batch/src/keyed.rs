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
/// Once there are `many`, those that nobody uses are dropped, so the calls of a key never overtake its earlier ones.
pub struct KeyedBatchers<K, Q, A> {
    many: usize,
    make: Arc<dyn Fn() -> Batcher<Q, A> + Send + Sync>,
    by_key: Arc<Mutex<HashMap<K, Batcher<Q, A>>>>,
    /// The one of the keys that have none of their own, if the number is bounded.
    shared: Option<Batcher<Q, A>>,
}

impl<K, Q, A> Clone for KeyedBatchers<K, Q, A> {
    fn clone(&self) -> Self {
        Self { many: self.many, make: self.make.clone(), by_key: self.by_key.clone(), shared: self.shared.clone() }
    }
}

impl<K: Eq + Hash, Q: Send + 'static, A: Send + 'static> KeyedBatchers<K, Q, A> {
    /// Returns as many batchers as there are keys in use, each created by `make` on the current tokio runtime. For keys
    /// of which there cannot be too many.
    pub fn new(many: usize, make: impl Fn() -> Batcher<Q, A> + Send + Sync + 'static) -> Self {
        Self { many, make: Arc::new(make), by_key: Arc::default(), shared: None }
    }

    /// Returns at most `max_keys` batchers, and one more, which is created at once. If all are in use, the calls of
    /// further keys share that one, so no key is refused. For keys that anybody can make up. A batch of the shared one
    /// may have calls of several keys, and a call of a key that leaves it for a batcher of its own may overtake the
    /// key's earlier ones.
    pub fn bounded(max_keys: usize, make: impl Fn() -> Batcher<Q, A> + Send + Sync + 'static) -> Self {
        let shared = Some(make());
        Self { shared, ..Self::new(max_keys, make) }
    }

    /// Returns the batcher for the calls of this key. It is in use until it is dropped and its calls have ended.
    pub fn of(&self, key: K) -> Batcher<Q, A> {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batcher) = by_key.get(&key) {
            return batcher.clone();
        }
        if by_key.len() >= self.many {
            by_key.retain(|_, batcher| batcher.is_in_use());
        }
        match &self.shared {
            Some(shared) if by_key.len() >= self.many => shared.clone(),
            _ => by_key.entry(key).or_insert_with(|| (self.make)()).clone(),
        }
    }
}
