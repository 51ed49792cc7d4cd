//! The hub as its watchers see it. Time is paused, so a period passes as soon as all tasks idle.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use tokio::time::sleep;

use super::Hub;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The table that the hub polls, with a record of the keys of each load.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<HashMap<u32, &'static str>>>,
    loads: Arc<Mutex<Vec<Vec<u32>>>>,
}

impl Table {
    fn hub(&self) -> Hub<u32, &'static str> {
        let table = self.clone();
        Hub::new(POLL_INTERVAL, move |mut keys: Vec<u32>| {
            let table = table.clone();
            async move {
                keys.sort_unstable();
                let rows = table.rows.lock().unwrap().clone();
                table.loads.lock().unwrap().push(keys.clone());
                anyhow::ensure!(!rows.contains_key(&500), "the database is away");
                assert!(!rows.contains_key(&600), "a bug in the load");
                Ok(rows.into_iter().filter(|(key, _)| keys.contains(key)).collect())
            }
        })
    }

    fn put(&self, key: u32, value: &'static str) {
        self.rows.lock().unwrap().insert(key, value);
    }

    fn remove(&self, key: u32) {
        self.rows.lock().unwrap().remove(&key);
    }

    fn loads(&self) -> Vec<Vec<u32>> {
        self.loads.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_the_value_and_then_each_change() {
    let table = Table::default();
    table.put(1, "placed");
    let mut watcher = pin!(table.hub().watch(1));
    assert_eq!(watcher.next().await, Some("placed"));
    sleep(POLL_INTERVAL * 3).await;
    assert_eq!(watcher.next().now_or_never(), None, "nothing changed");
    table.put(1, "paid");
    assert_eq!(watcher.next().await, Some("paid"));
}

#[tokio::test(start_paused = true)]
async fn one_load_a_period_serves_all_watchers() {
    let table = Table::default();
    table.put(1, "a");
    table.put(2, "b");
    let hub = table.hub();
    let mut watchers: Vec<_> = [1, 1, 2, 2, 2].map(|key| hub.watch(key).boxed()).into();
    sleep(POLL_INTERVAL / 2).await;
    assert_eq!(table.loads(), [vec![1, 2]]);
    for watcher in &mut watchers {
        assert!(watcher.next().await.is_some());
    }
    assert_eq!(table.loads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_loaded_while_nobody_watches() {
    let table = Table::default();
    let hub = table.hub();
    sleep(POLL_INTERVAL * 10).await;
    assert!(table.loads().is_empty());
    drop(hub.watch(1));
    sleep(POLL_INTERVAL * 10).await;
    assert!(table.loads().is_empty());
    let watcher = hub.watch(1);
    sleep(POLL_INTERVAL * 3).await;
    let watched = table.loads().len();
    assert!(watched >= 3);
    drop(watcher);
    sleep(POLL_INTERVAL * 10).await;
    assert_eq!(table.loads().len(), watched);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_never_shown_what_was_loaded_before_it_came() {
    let table = Table::default();
    table.put(1, "old");
    let hub = table.hub();
    let mut first = pin!(hub.watch(1));
    assert_eq!(first.next().await, Some("old"));
    table.put(1, "new");
    let mut second = pin!(hub.watch(1));
    assert_eq!(second.next().await, Some("new"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_skips_to_the_newest() {
    let table = Table::default();
    table.put(1, "a");
    let mut watcher = pin!(table.hub().watch(1));
    assert_eq!(watcher.next().await, Some("a"));
    for value in ["b", "c", "d"] {
        table.put(1, value);
        sleep(POLL_INTERVAL * 2).await;
    }
    assert_eq!(watcher.next().await, Some("d"));
    assert_eq!(watcher.next().now_or_never(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_value_yields_when_it_gets_one() {
    let table = Table::default();
    let mut watcher = pin!(table.hub().watch(1));
    assert!(tokio::time::timeout(POLL_INTERVAL * 5, watcher.next()).await.is_err());
    table.put(1, "there");
    assert_eq!(watcher.next().await, Some("there"));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_or_panics_is_tried_again() {
    let table = Table::default();
    table.put(1, "a");
    for trouble in [500, 600] {
        table.put(trouble, "trouble");
        let mut watcher = pin!(table.hub().watch(1));
        assert!(tokio::time::timeout(POLL_INTERVAL * 5, watcher.next()).await.is_err());
        table.remove(trouble);
        assert_eq!(watcher.next().await, Some("a"));
    }
}
