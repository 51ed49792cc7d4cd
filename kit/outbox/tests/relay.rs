//! The relay against the real database and the real Kafka: nothing lost, nothing out of order, with replicas and
//! crashes.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    message::Headers,
};
use stampede_db::Database;
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig, append};
use stampede_testkit::{Service, World, eventually};
use std::{collections::BTreeMap, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Bench {
    world: World,
    db: Database,
}

struct Running {
    outbox: Outbox,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().unwrap();
        let db = world.schema(Service::Event).await.unwrap();
        world.create_topics().await.unwrap();
        Self { world, db }
    }

    fn topic(&self) -> String {
        format!("{}.event", self.world.topic_prefix())
    }

    fn start_relay(&self) -> Running {
        let config = RelayConfig::new(self.world.brokers(), self.world.topic_prefix(), Service::Event);
        let (outbox, relay) = Relay::new(config, self.db.clone()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(relay.run(stop.clone()));
        Running { outbox, stop, task }
    }

    async fn write(&self, aggregate: usize, version: i64) {
        self.db
            .transact("write", move |conn| Box::pin(async move { append(conn, &[message(aggregate, version)]).await }))
            .await
            .unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.db.acquire().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap()
    }

    async fn unsent(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM outbox_unsent").await
    }

    /// Reads until `count` different messages have come, and returns the versions of each key in order of arrival.
    async fn received(&self, count: usize) -> BTreeMap<String, Vec<i64>> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.world.brokers())
            // A group of its own, so that each reading starts at the beginning.
            .set("group.id", stampede_vocab::UserId::random().to_string())
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&[&self.topic()]).unwrap();
        let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        let read = async {
            while seen.len() < count {
                let message = consumer.recv().await.unwrap();
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                let version: i64 = header(&message, "ce_sequence").parse().unwrap();
                if seen.insert((key.clone(), version)) {
                    versions.entry(key).or_default().push(version);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("every message comes within a minute");
        versions
    }
}

fn message(aggregate: usize, version: i64) -> OutboxMessage {
    OutboxMessage {
        aggregate_type: "event",
        aggregate_id: format!("evt_{aggregate}"),
        aggregate_version: version,
        message_type: "stampede.message.v1.EventOpened".to_owned(),
        payload: vec![1, 2, 3],
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

fn header(message: &impl Message<Headers = rdkafka::message::BorrowedHeaders>, name: &str) -> String {
    let headers = message.headers().unwrap();
    let found = headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("no header {name}"));
    String::from_utf8(found.value.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_and_a_hand_over_lose_nothing_and_keep_each_aggregate_in_order() {
    const AGGREGATES: usize = 40;
    const VERSIONS: i64 = 25;
    let bench = Bench::new().await;
    let (first, second) = (bench.start_relay(), bench.start_relay());
    for version in 1..=VERSIONS {
        for aggregate in 0..AGGREGATES {
            bench.write(aggregate, version).await;
            first.outbox.wake();
        }
        if version == VERSIONS / 2 {
            // As a power cut: no flush, no lease given back.
            second.task.abort();
        }
    }
    let received = bench.received(AGGREGATES * usize::try_from(VERSIONS).unwrap()).await;
    let expected: Vec<i64> = (1..=VERSIONS).collect();
    for (key, versions) in received {
        assert_eq!(versions, expected, "{key}");
    }
    first.stop.cancel();
    first.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_commits_late_is_not_passed_over() {
    let bench = Bench::new().await;
    let relay = bench.start_relay();
    // Takes the lower id and commits only after the higher ones have been sent.
    let mut late = bench.db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *late).await.unwrap();
    append(&mut late, &[message(1, 1)]).await.unwrap();
    for aggregate in 2..=20 {
        bench.write(aggregate, 1).await;
    }
    relay.outbox.wake();
    assert_eq!(bench.received(19).await.len(), 19);
    let done = || async { (bench.unsent().await == 0).then_some(()) };
    eventually("what was sent is marked while another transaction is writing", done).await;
    sqlx::raw_sql("COMMIT").execute(&mut *late).await.unwrap();
    let all = bench.received(20).await;
    assert_eq!(all.get("evt_1"), Some(&vec![1]));
    relay.stop.cancel();
    relay.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_relay_sends_what_is_left_and_gives_its_leases_back() {
    let bench = Bench::new().await;
    let relay = bench.start_relay();
    bench.write(1, 1).await;
    bench.received(1).await;
    for aggregate in 0..200 {
        bench.write(aggregate, 2).await;
    }
    relay.stop.cancel();
    relay.task.await.unwrap();
    let unsent = bench.unsent().await;
    let mut conn = bench.db.acquire().await.unwrap();
    let held: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox_leases WHERE expires_us > 0")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    assert_eq!((unsent, held), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_long_ago_is_purged_and_what_is_unsent_is_not() {
    let bench = Bench::new().await;
    for aggregate in 0..3 {
        bench.write(aggregate, 1).await;
    }
    let mut conn = bench.db.acquire().await.unwrap();
    // Of two that are old one was sent; the relay finds no lease free for the other.
    for sql in [
        "UPDATE outbox SET created_us = 1 WHERE aggregateid IN ('evt_0', 'evt_1')",
        "DELETE FROM outbox_unsent WHERE id <> (SELECT id FROM outbox WHERE aggregateid = 'evt_1')",
        "UPDATE outbox_leases SET owner = 'another', expires_us = 9000000000000000",
    ] {
        sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap();
    }
    drop(conn);
    let relay = bench.start_relay();
    let left = "SELECT COUNT(*) FROM outbox";
    eventually("one is purged", || async { (bench.count(left).await < 3).then_some(()) }).await;
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox WHERE aggregateid IN ('evt_1', 'evt_2')").await, 2);
    relay.stop.cancel();
    relay.task.await.unwrap();
}
