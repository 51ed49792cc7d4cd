//! Fan-out of polled rows to many watchers.
//!
//! A [`Hub`] loads all watched keys in one query, once a period, and sends each watcher the values of its key as they
//! change. The cost is one query a period however many watch, and none without watchers.
//!
//! For values with versions, [`Hub::by_version`] queries the versions, and loads only values whose version has changed:
//! an idle crowd costs one number for each key and period.
//!
//! A watcher sees states, not steps: a slow one skips to the newest. This crate must not know the source of the values,
//! and keeps only the newest of each.
//!
//! ```
//! use futures_util::StreamExt;
//! use stampede_watch::Hub;
//! use std::{collections::HashMap, time::Duration};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let length = |names: Vec<&'static str>| async move {
//!     Ok(names.into_iter().map(|name| (name, name.len())).collect::<HashMap<_, _>>())
//! };
//! let hub = Hub::new(Duration::from_millis(10), length);
//! let mut lengths = Box::pin(hub.watch("stampede"));
//! assert_eq!(lengths.next().await, Some(8));
//! # });
//! ```

#![warn(missing_docs)]

mod poll;
mod registry;
#[cfg(test)]
mod tests;

use futures_util::{Stream, stream};
use registry::Registry;
use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, time::Duration};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Watches values `V` by key `K`. Clones share one poll.
///
/// The poll ends when the last clone and the last stream are dropped.
pub struct Hub<K, V> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K, V> {
    registry: Arc<Registry<K, V>>,
    _stop_poll: DropGuard,
}

impl<K, V> Clone for Hub<K, V> {
    fn clone(&self) -> Self {
        Hub { inner: self.inner.clone() }
    }
}

impl<K, V> Hub<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: PartialEq + Clone + Send + Sync + 'static,
{
    /// Starts a hub on the current tokio runtime.
    ///
    /// `load` gets the watched keys, each once, and returns their values, without keys that have none. A failed load is
    /// logged, and tried again after a period.
    pub fn new<F, Fut>(period: Duration, load: F) -> Self
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<HashMap<K, V>>> + Send + 'static,
    {
        Self::start(Arc::default(), period, load)
    }

    /// Starts a hub that loads a value only if its version has changed.
    ///
    /// `versions` gets the watched keys, each once, and returns the versions of their values, without keys that have
    /// none. `load` gets the keys whose version has changed, and is not called without any. `version` returns that of a
    /// value. Both are tried again like any load.
    pub fn by_version<F, FutF, G, FutG>(period: Duration, version: fn(&V) -> i64, versions: F, load: G) -> Self
    where
        F: Fn(Vec<K>) -> FutF + Send + Sync + 'static,
        FutF: Future<Output = anyhow::Result<HashMap<K, i64>>> + Send + 'static,
        G: Fn(Vec<K>) -> FutG + Send + Sync + 'static,
        FutG: Future<Output = anyhow::Result<HashMap<K, V>>> + Send + 'static,
    {
        let (registry, load) = (Arc::new(Registry::default()), Arc::new(load));
        let known = registry.clone();
        let load_changed = move |keys: Vec<K>| {
            let (known, load, versions) = (known.clone(), load.clone(), versions(keys));
            async move {
                let changed = known.outdated(versions.await?, version);
                if changed.is_empty() { Ok(HashMap::new()) } else { load(changed).await }
            }
        };
        Self::start(registry, period, load_changed)
    }

    fn start<F, Fut>(registry: Arc<Registry<K, V>>, period: Duration, load: F) -> Self
    where
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<HashMap<K, V>>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let poll = poll::run(registry.clone(), period, load);
        tokio::spawn(stop.clone().run_until_cancelled_owned(poll));
        Hub { inner: Arc::new(Inner { registry, _stop_poll: stop.drop_guard() }) }
    }

    /// Returns a stream of the value of `key`, by a load that starts after this call, and of its changes.
    ///
    /// A key without a value yields its first when it gets one. Dropping the stream ends the watch.
    pub fn watch(&self, key: K) -> impl Stream<Item = V> + Send + use<K, V> {
        let (first_load, values) = self.inner.registry.register(key);
        let watcher = Watcher { first_load: Some(first_load), values, _hub: self.inner.clone() };
        stream::unfold(watcher, Watcher::next)
    }
}

/// The last value that one stream has seen. It holds the hub, which keeps the poll alive.
struct Watcher<K, V> {
    first_load: Option<oneshot::Receiver<()>>,
    values: watch::Receiver<Option<V>>,
    _hub: Arc<Inner<K, V>>,
}

impl<K, V: Clone> Watcher<K, V> {
    async fn next(mut self) -> Option<(V, Self)> {
        match self.first_load.take() {
            Some(first_load) => first_load.await.ok()?,
            None => self.values.changed().await.ok()?,
        }
        loop {
            let newest = self.values.borrow_and_update().clone();
            if let Some(value) = newest {
                return Some((value, self));
            }
            self.values.changed().await.ok()?;
        }
    }
}
