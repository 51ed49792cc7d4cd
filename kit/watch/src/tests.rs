//! The hub as its watchers see it. Time is paused, so a period passes as soon as all tasks idle.

use super::Hub;
use futures_util::{FutureExt, StreamExt};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::sleep;

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
        Hub::new(POLL_INTERVAL, move |keys| table.clone().load(keys))
    }

    /// The version of a value is its length.
    fn hub_by_version(&self) -> Hub<u32, &'static str> {
        let (asked, loaded) = (self.clone(), self.clone());
        let versions = move |keys: Vec<u32>| {
            let rows = asked.rows.lock().unwrap().clone();
            async move {
                let watched = rows.into_iter().filter(|(key, _)| keys.contains(key));
                anyhow::Ok(watched.map(|(key, value)| (key, version(&value))).collect::<HashMap<_, _>>())
            }
        };
        Hub::by_version(POLL_INTERVAL, version, versions, move |keys| loaded.clone().load(keys))
    }

    async fn load(self, mut keys: Vec<u32>) -> anyhow::Result<HashMap<u32, &'static str>> {
        keys.sort_unstable();
        let rows = self.rows.lock().unwrap().clone();
        self.loads.lock().unwrap().push(keys.clone());
        anyhow::ensure!(!rows.contains_key(&500), "the database is away");
        assert!(!rows.contains_key(&600), "a bug in the load");
        Ok(rows.into_iter().filter(|(key, _)| keys.contains(key)).collect())
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

fn version(value: &&'static str) -> i64 {
    i64::try_from(value.len()).unwrap()
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

#[tokio::test(start_paused = true)]
async fn what_has_the_version_at_hand_is_not_loaded_again() {
    let table = Table::default();
    table.put(1, "a");
    table.put(2, "b");
    let hub = table.hub_by_version();
    let (mut one, mut two) = (pin!(hub.watch(1)), pin!(hub.watch(2)));
    assert_eq!((one.next().await, two.next().await), (Some("a"), Some("b")));
    sleep(POLL_INTERVAL * 5).await;
    assert_eq!(table.loads(), [vec![1, 2]], "nothing has changed");
    table.put(1, "aa");
    assert_eq!(one.next().await, Some("aa"));
    let mut newcomer = pin!(hub.watch(2));
    assert_eq!(newcomer.next().await, Some("b"));
    assert_eq!(table.loads(), [vec![1, 2], vec![1]], "one has changed");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_watched_for_a_while_is_loaded_anew() {
    let table = Table::default();
    table.put(1, "a");
    let hub = table.hub_by_version();
    assert_eq!(pin!(hub.watch(1)).next().await, Some("a"));
    sleep(POLL_INTERVAL * 3).await;
    assert_eq!(pin!(hub.watch(1)).next().await, Some("a"));
    assert_eq!(table.loads().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_could_not_be_loaded_is_loaded_in_the_next_period() {
    let table = Table::default();
    table.put(1, "a");
    let hub = table.hub_by_version();
    let mut watcher = pin!(hub.watch(1));
    assert_eq!(watcher.next().await, Some("a"));
    table.put(500, "trouble");
    table.put(1, "aa");
    assert!(tokio::time::timeout(POLL_INTERVAL * 3, watcher.next()).await.is_err());
    table.remove(500);
    assert_eq!(watcher.next().await, Some("aa"));
}
