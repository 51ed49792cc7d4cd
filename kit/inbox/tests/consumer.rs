//! The consumer against the real database and the real Kafka: each message takes effect once, in the order of its key.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use rdkafka::{
    ClientConfig, Message as _,
    consumer::{Consumer as _, StreamConsumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, Statement};
use stampede_inbox::{Boxed, Consumer, ConsumerConfig, HandleError, Handler, Message};
use stampede_testkit::{Service, World, eventually};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Notes each message in a table; refuses the payload "poison"; fails in the database on "impossible"; panics on
/// "panic".
struct Notes;

impl Handler for Notes {
    type Effects = usize;

    fn apply<'c>(
        &'c self,
        conn: &'c mut MySqlConnection,
        batch: &'c [Message],
    ) -> Boxed<'c, Result<usize, HandleError>> {
        Box::pin(async move {
            for (index, message) in batch.iter().enumerate() {
                if message.payload == b"poison" {
                    return Err(HandleError::Poison { index, detail: "it says so itself".to_owned() });
                }
                assert_ne!(message.payload, b"panic", "a bug in the handler");
                let text = if message.payload == b"impossible" { None } else { Some(&message.payload) };
                let note =
                    sqlx::query("INSERT INTO notes (message_key, text) VALUES (?, ?)").bind(&message.key).bind(text);
                note.execute(&mut *conn).await.map_err(DbError::from)?;
            }
            Ok(batch.len())
        })
    }

    fn committed(&self, _effects: usize) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    world: World,
    db: Database,
    producer: FutureProducer,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().unwrap();
        let db = world.schema(Service::Order).await.unwrap();
        world.create_topics().await.unwrap();
        let mut conn = db.acquire().await.unwrap();
        sqlx::query("CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, message_key VARCHAR(64) NOT NULL, text BLOB NOT NULL)")
            .execute(&mut *conn)
            .await
            .unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", world.brokers()).create().unwrap();
        Self { world, db, producer }
    }

    fn topic(&self) -> String {
        format!("{}.payment", self.world.topic_prefix())
    }

    fn start_consumer(&self) -> (CancellationToken, JoinHandle<()>) {
        let taken = ["stampede.message.v1.PaymentApproved".to_owned()];
        let config = ConsumerConfig::new(self.world.brokers(), self.world.topic_prefix(), Service::Order, taken);
        let consumer = Consumer::new(config, self.db.clone(), Arc::new(Notes)).unwrap();
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(consumer.run(stop)))
    }

    async fn send(&self, id: u64, key: &str, text: &str) {
        self.send_typed(id, "stampede.message.v1.PaymentApproved", key, text).await;
    }

    async fn send_typed(&self, id: u64, message_type: &str, key: &str, text: &str) {
        let id = id.to_string();
        let headers = [("ce_id", id.as_str()), ("ce_source", "/stampede/payment"), ("ce_type", message_type)];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let topic = self.topic();
        let record = FutureRecord::to(&topic).key(key).payload(text).headers(headers);
        self.producer.send(record, Duration::from_secs(20)).await.unwrap();
    }

    async fn notes(&self, key: &str) -> Vec<String> {
        let mut conn = self.db.acquire().await.unwrap();
        let notes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT text FROM notes WHERE message_key = ? ORDER BY id")
            .bind(key)
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        notes.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
    }

    async fn until_notes(&self, key: &str, expected: &[&str]) {
        eventually(&format!("{key} has {expected:?}"), || async { (self.notes(key).await == expected).then_some(()) })
            .await;
    }

    /// Sends what no service of ours would: a key and a payload without headers.
    async fn send_bare(&self, key: &str, text: &str) {
        let topic = self.topic();
        let record = FutureRecord::to(&topic).key(key).payload(text);
        self.producer.send(record, Duration::from_secs(20)).await.unwrap();
    }

    async fn dead_letters(&self, count: usize) -> Vec<(String, String)> {
        let reader: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.world.brokers())
            .set("group.id", format!("{}.reader", self.world.topic_prefix()))
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        reader.subscribe(&[&format!("{}.order.dlq", self.topic())]).unwrap();
        let mut letters = Vec::new();
        while letters.len() < count {
            let message =
                tokio::time::timeout(Duration::from_secs(30), reader.recv()).await.expect("a dead letter").unwrap();
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
            letters.push((text(message.key()), text(message.payload())));
        }
        letters
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_twice_takes_effect_once() {
    let bench = Bench::new().await;
    for (id, text) in [(1, "one"), (2, "two"), (1, "one"), (2, "two"), (3, "three")] {
        bench.send(id, "a", text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one", "two", "three"]).await;
    // A later repeat, in a batch of its own, and something behind it that shows when it has been seen.
    bench.send(2, "a", "two").await;
    bench.send(4, "a", "four").await;
    bench.until_notes("a", &["one", "two", "three", "four"]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_means_nothing_to_the_service_leaves_no_record() {
    let bench = Bench::new().await;
    let (stop, running) = bench.start_consumer();
    bench.send_typed(1, "stampede.message.v1.PaymentPondered", "a", "of no interest").await;
    bench.send(2, "a", "taken").await;
    bench.until_notes("a", &["taken"]).await;
    let mut conn = bench.db.acquire().await.unwrap();
    let recorded: Vec<u64> = sqlx::query_scalar("SELECT message_id FROM inbox").fetch_all(&mut *conn).await.unwrap();
    assert_eq!(recorded, [2]);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_applied_is_set_aside_and_its_key_waits_behind_it() {
    let bench = Bench::new().await;
    for (id, key, text) in
        [(1, "a", "one"), (2, "a", "poison"), (3, "a", "three"), (4, "b", "four"), (5, "c", "impossible")]
    {
        bench.send(id, key, text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_notes("b", &["four"]).await;
    let mut letters = bench.dead_letters(3).await;
    letters.sort();
    let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    assert_eq!(letters, [pair("a", "poison"), pair("a", "three"), pair("c", "impossible")]);
    assert_eq!(bench.notes("a").await, ["one"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_which_the_handler_panics_is_set_aside_and_the_others_go_on() {
    let bench = Bench::new().await;
    for (id, key, text) in [(1, "a", "one"), (2, "b", "panic"), (3, "c", "three")] {
        bench.send(id, key, text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one"]).await;
    bench.until_notes("c", &["three"]).await;
    assert_eq!(bench.dead_letters(1).await, [("b".to_owned(), "panic".to_owned())]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_no_message_is_set_aside_as_it_came_and_parks_nothing() {
    let bench = Bench::new().await;
    bench.send_bare("a", "not ours").await;
    bench.send(1, "a", "one").await;
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one"]).await;
    assert_eq!(bench.dead_letters(1).await, [("a".to_owned(), "not ours".to_owned())]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_forgotten_however_much_it_is_and_without_a_message() {
    const OLD: u64 = 12_000;
    let bench = Bench::new().await;
    let mut conn = bench.db.acquire().await.unwrap();
    let ids: Vec<u64> = (1..=OLD).collect();
    for ids in ids.chunks(2_000) {
        let mut insert = Statement::new("INSERT INTO inbox (source, message_id, processed_us) ");
        insert.push_values(ids, |mut row, id| {
            row.push_bind("/stampede/payment").push_bind(id).push_bind(1_i64);
        });
        insert.execute(&mut conn).await.unwrap();
    }
    let (stop, task) = bench.start_consumer();
    eventually("nothing old is left", || async {
        let mut conn = bench.db.acquire().await.ok()?;
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM inbox").fetch_one(&mut *conn).await.ok()?;
        (left == 0).then_some(())
    })
    .await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_takes_no_message_of_another_partition_with_it() {
    let bench = Bench::new().await;
    // One message for each of many keys: every partition has the offset of the poison.
    bench.send(1, "poisoned", "poison").await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for (id, key) in (2..).zip(&keys) {
        bench.send(id, key, "fine").await;
    }
    let (stop, task) = bench.start_consumer();
    for key in &keys {
        bench.until_notes(key, &["fine"]).await;
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_consumer_left_is_applied_by_the_next_one() {
    let bench = Bench::new().await;
    let (_, killed) = bench.start_consumer();
    bench.send(1, "a", "one").await;
    bench.until_notes("a", &["one"]).await;
    killed.abort();
    bench.send(2, "a", "two").await;
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one", "two"]).await;
    stop.cancel();
    task.await.unwrap();
}
