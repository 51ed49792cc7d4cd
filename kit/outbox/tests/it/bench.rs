//! An outbox, relays of it, and what has come to its topic.

use rdkafka::{
    ClientConfig, Message,
    consumer::{Consumer, StreamConsumer},
    message::{BorrowedHeaders, Headers},
};
use stampede_db::Database;
use stampede_outbox::{Outbox, OutboxMessage, Relay, RelayConfig, append};
use stampede_testkit::{Service, World, eventually};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Partitions of a topic of a [`World`].
const TOPIC_PARTITIONS: i32 = 4;

pub struct Bench {
    pub world: World,
    pub db: Database,
}

pub struct Running {
    pub outbox: Outbox,
    stop: CancellationToken,
    frozen: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// As a process that gets no processor: none of its code runs, but the threads of its Kafka client do.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn freezable(run: impl Future<Output = ()>, mut frozen: watch::Receiver<bool>) {
    let mut run = pin!(run);
    loop {
        let is_frozen = *frozen.borrow_and_update();
        tokio::select! {
            biased;
            Ok(()) = frozen.changed() => {}
            () = &mut run, if !is_frozen => return,
        }
    }
}

impl Bench {
    pub async fn new() -> Self {
        let bench = Self::without_topics().await;
        bench.world.create_topics().await.unwrap();
        bench
    }

    pub async fn without_topics() -> Self {
        let world = World::new().unwrap();
        let db = world.schema(Service::Event).await.unwrap();
        Self { world, db }
    }

    pub fn topic(&self) -> String {
        format!("{}.event", self.world.topic_prefix())
    }

    pub fn start_relay(&self) -> Running {
        self.start_relay_to(self.world.brokers())
    }

    pub fn start_relay_to(&self, brokers: &str) -> Running {
        self.start_relay_on(brokers, self.db.clone())
    }

    pub fn start_relay_on(&self, brokers: &str, db: Database) -> Running {
        let config = RelayConfig::new(brokers, self.world.topic_prefix(), Service::Event);
        let (outbox, relay) = Relay::new(config, db).unwrap();
        let stop = CancellationToken::new();
        let (frozen, is_frozen) = watch::channel(false);
        let task = tokio::spawn(freezable(relay.run(stop.clone()), is_frozen));
        Running { outbox, stop, frozen, task }
    }

    pub async fn write(&self, aggregate: usize, version: i64) {
        self.db
            .transact("write", move |conn| Box::pin(async move { append(conn, &[message(aggregate, version)]).await }))
            .await
            .unwrap();
    }

    pub async fn run(&self, sql: &'static str) {
        let mut conn = self.db.acquire().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap();
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.db.acquire().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap()
    }

    /// Messages that may be unsent.
    pub async fn unsent(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM outbox JOIN outbox_leases USING (partition_no) WHERE outbox.id > floor_id")
            .await
    }

    /// Waits until the floor of every partition is at the last message.
    pub async fn settled(&self) {
        let behind = "SELECT COUNT(*) FROM outbox_leases WHERE floor_id < (SELECT MAX(id) FROM outbox)";
        eventually("every floor is at the last message", || async { (self.count(behind).await == 0).then_some(()) })
            .await;
    }

    fn consumer(&self) -> StreamConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.world.brokers())
            // A group of its own, so that each reading starts at the beginning.
            .set("group.id", stampede_vocab::UserId::random().to_string())
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap()
    }

    /// Returns how many records the topic has, repeats included.
    pub fn records(&self) -> i64 {
        let consumer = self.consumer();
        let end = |partition| consumer.fetch_watermarks(&self.topic(), partition, Duration::from_secs(10)).unwrap().1;
        (0..TOPIC_PARTITIONS).map(end).sum()
    }

    /// Reads until `count` different messages have come, and returns the versions of each key in order of arrival.
    pub async fn received(&self, count: usize) -> BTreeMap<String, Vec<i64>> {
        self.received_from(&self.topic(), count).await
    }

    /// The same of any topic.
    pub async fn received_from(&self, topic: &str, count: usize) -> BTreeMap<String, Vec<i64>> {
        let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (key, version, _) in self.deliveries_of(topic, count).await {
            versions.entry(key).or_default().push(version);
        }
        versions
    }

    /// Reads until `count` different messages have come, and returns key, version and id of each in order of arrival.
    pub async fn first_deliveries(&self, count: usize) -> Vec<(String, i64, String)> {
        self.deliveries_of(&self.topic(), count).await
    }

    /// Checks that all versions of each aggregate have come, in their order.
    pub async fn assert_all_in_order(&self, aggregates: usize, versions: i64) {
        let received = self.received(aggregates * usize::try_from(versions).unwrap()).await;
        let expected: Vec<i64> = (1..=versions).collect();
        for (key, versions) in received {
            assert_eq!(versions, expected, "{key}");
        }
    }

    async fn deliveries_of(&self, topic: &str, count: usize) -> Vec<(String, i64, String)> {
        let consumer = self.consumer();
        consumer.subscribe(&[topic]).unwrap();
        let mut seen = BTreeSet::new();
        let mut messages = Vec::new();
        let read = async {
            while messages.len() < count {
                let record = consumer.recv().await.unwrap();
                let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
                let version: i64 = header(&record, "ce_sequence").parse().unwrap();
                if seen.insert((key.clone(), version)) {
                    messages.push((key, version, header(&record, "ce_id")));
                }
            }
        };
        let limit = Duration::from_secs(60 + count as u64 / 200);
        tokio::time::timeout(limit, read).await.expect("every message comes in time");
        messages
    }
}

pub fn message(aggregate: usize, version: i64) -> OutboxMessage {
    OutboxMessage {
        aggregate_type: "event",
        aggregate_id: format!("evt_{aggregate}"),
        aggregate_version: version,
        message_type: "stampede.message.v1.EventOpened".to_owned(),
        payload: vec![1, 2, 3],
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

fn header(message: &impl Message<Headers = BorrowedHeaders>, name: &str) -> String {
    let headers = message.headers().unwrap();
    let found = headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("no header {name}"));
    String::from_utf8(found.value.unwrap().to_vec()).unwrap()
}
