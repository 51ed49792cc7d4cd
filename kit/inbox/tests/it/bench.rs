//! What the tests are made of: a schema, the topics of a service, a handler that takes notes, and a writer.
#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, StreamConsumer},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::MySqlConnection;
use stampede_db::{Database, DbConfig, DbError};
use stampede_inbox::{
    Boxed, Consumer, ConsumerConfig, HandleError, Handler, MAX_POLL_INTERVAL_MS, Message, SESSION_TIMEOUT_MS,
};
use stampede_testkit::{Service, World, eventually};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a message that is slow takes.
const SLOW: Duration = Duration::from_millis(20);
/// The one type of messages that is taken.
const TAKEN: &str = "stampede.message.v1.PaymentApproved";
/// How long a patient consumer waits for its database.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any message is tried before it is set aside.
pub const A_WHILE: Duration = Duration::from_secs(3);

/// Notes each message in a table, once. Refuses the payload "poison", and "sick" while there is no medicine; finds a
/// row of a newer release on "newer" until then; is refused by the database on "impossible"; panics on "panic"; takes
/// its time on "slow".
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
                if message.payload == b"poison" || (message.payload == b"sick" && !has_medicine(conn).await?) {
                    return Err(HandleError::Poison { index, detail: "it says so itself".to_owned() });
                }
                if message.payload == b"newer" && !has_medicine(conn).await? {
                    return Err(DbError::newer("a state that is not known here").into());
                }
                assert_ne!(message.payload, b"panic", "a bug in the handler");
                if message.payload == b"slow" {
                    tokio::time::sleep(SLOW).await;
                }
                note(conn, message).await?;
            }
            Ok(batch.len())
        })
    }

    fn committed(&self, _effects: usize) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn has_medicine(conn: &mut MySqlConnection) -> Result<bool, DbError> {
    let any: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM medicine").fetch_one(conn).await?;
    Ok(any > 0)
}

async fn note(conn: &mut MySqlConnection, message: &Message) -> Result<(), DbError> {
    let text = if message.payload == b"impossible" { None } else { Some(&message.payload) };
    sqlx::query(
        "INSERT INTO notes (message_id, sequence, message_key, text) VALUES (?, ?, ?, ?) \
         ON DUPLICATE KEY UPDATE calls = calls + 1",
    )
    .bind(&message.id)
    .bind(message.sequence)
    .bind(&message.key)
    .bind(text)
    .execute(conn)
    .await?;
    Ok(())
}

/// A dead letter: its key, payload, kind and state.
pub type Letter = (String, String, String, String);

/// A copy of a dead letter: its key, payload and headers.
pub type Copied = (String, String, Vec<(String, Vec<u8>)>);

/// The letter that the table has.
pub fn letter(key: &str, text: &str, kind: &str, state: &str) -> Letter {
    (key.to_owned(), text.to_owned(), kind.to_owned(), state.to_owned())
}

async fn connect(url: &str, work_timeout: Duration) -> Database {
    // A test may hold a transaction up for as long as it looks on.
    let config = DbConfig { max_connections: 4, work_timeout, idle_timeout: PATIENCE, ..DbConfig::default() };
    Database::connect(url, config).await.unwrap()
}

pub struct Bench {
    pub world: World,
    pub db: Database,
    producer: FutureProducer,
    next_id: AtomicU64,
}

impl Bench {
    pub async fn new() -> Self {
        let world = World::new().unwrap();
        let db = world.schema(Service::Order).await.unwrap();
        world.create_topics().await.unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", world.brokers()).create().unwrap();
        let bench = Self { world, db, producer, next_id: AtomicU64::new(1) };
        bench
            .sql(
                "CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, message_id VARCHAR(64) NOT NULL UNIQUE, \
                 sequence BIGINT NOT NULL, message_key VARCHAR(64) NOT NULL, text BLOB NOT NULL, \
                 calls INT NOT NULL DEFAULT 1)",
            )
            .await;
        bench.sql("CREATE TABLE medicine (id INT AUTO_INCREMENT PRIMARY KEY)").await;
        bench
    }

    pub async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut *self.db.acquire().await.unwrap()).await.unwrap();
    }

    pub fn topic(&self) -> String {
        format!("{}.payment", self.world.topic_prefix())
    }

    pub fn start_consumer(&self) -> (CancellationToken, JoinHandle<()>) {
        self.start_consumer_of(self.world.brokers())
    }

    /// Starts one that reads from these brokers.
    pub fn start_consumer_of(&self, brokers: &str) -> (CancellationToken, JoinHandle<()>) {
        self.start_on(brokers, self.db.clone(), MAX_POLL_INTERVAL_MS)
    }

    /// Starts one that gives up whatever takes so long.
    pub async fn start_impatient(&self, work_timeout: Duration) -> (CancellationToken, JoinHandle<()>) {
        let url = self.world.service_database_url(Service::Order);
        self.start_on(self.world.brokers(), connect(&url, work_timeout).await, MAX_POLL_INTERVAL_MS)
    }

    /// Starts one that waits long for its database, which is there, and soon loses its partitions meanwhile.
    pub async fn start_patient(&self, database_url: &str) -> (CancellationToken, JoinHandle<()>) {
        self.start_on(self.world.brokers(), connect(database_url, PATIENCE).await, SESSION_TIMEOUT_MS)
    }

    fn start_on(&self, brokers: &str, db: Database, max_poll_interval_ms: u64) -> (CancellationToken, JoinHandle<()>) {
        let taken = [TAKEN.to_owned()];
        let config = ConsumerConfig::new(brokers, self.world.topic_prefix(), Service::Order, taken)
            .with_max_poll_interval_ms(max_poll_interval_ms);
        let consumer = Consumer::new(config, db, Arc::new(Notes)).unwrap();
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(consumer.run(stop)))
    }

    /// Sends a message, and returns its id.
    pub async fn send(&self, key: &str, text: &str) -> String {
        let id = self.new_id();
        self.send_again(&id, key, text).await;
        id
    }

    fn new_id(&self) -> String {
        format!("m{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a message compressed so. A short one would not be.
    pub async fn send_compressed(&self, compression: &str, key: &str, text: &str) {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", self.world.brokers()).set("compression.type", compression);
        let producer: FutureProducer = settings.create().unwrap();
        let id = self.new_id();
        self.send_by(&producer, (&id, TAKEN), key, text).await;
    }

    pub async fn send_again(&self, id: &str, key: &str, text: &str) {
        self.send_typed(id, TAKEN, key, text).await;
    }

    pub async fn send_typed(&self, id: &str, message_type: &str, key: &str, text: &str) {
        self.send_by(&self.producer, (id, message_type), key, text).await;
    }

    async fn send_by(&self, producer: &FutureProducer, (id, message_type): (&str, &str), key: &str, text: &str) {
        let headers: [(&str, &[u8]); 5] = [
            ("ce_id", id.as_bytes()),
            ("ce_source", b"/stampede/payment"),
            ("ce_type", message_type.as_bytes()),
            ("ce_sequence", b"7"),
            ("of-nobody", b"\xff"),
        ];
        let headers = headers
            .into_iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let topic = self.topic();
        let record = FutureRecord::to(&topic).key(key).payload(text).headers(headers);
        producer.send(record, Duration::from_secs(20)).await.unwrap();
    }

    /// Sends what no service of ours would: a key and a payload without headers.
    pub async fn send_bare(&self, key: &str, text: &str) {
        let topic = self.topic();
        let record = FutureRecord::to(&topic).key(key).payload(text);
        self.producer.send(record, Duration::from_secs(20)).await.unwrap();
    }

    pub async fn notes(&self, key: &str) -> Vec<String> {
        let notes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT text FROM notes WHERE message_key = ? ORDER BY id")
            .bind(key)
            .fetch_all(&mut *self.db.acquire().await.unwrap())
            .await
            .unwrap_or_default();
        notes.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
    }

    pub async fn until_notes(&self, key: &str, expected: &[&str]) {
        eventually(&format!("{key} has {expected:?}"), || async { (self.notes(key).await == expected).then_some(()) })
            .await;
    }

    /// How often the handler was given the message.
    pub async fn calls(&self, id: &str) -> i32 {
        self.calls_so_far(id).await.unwrap()
    }

    /// How often, if it was at all.
    pub async fn calls_so_far(&self, id: &str) -> Option<i32> {
        sqlx::query_scalar("SELECT calls FROM notes WHERE message_id = ?")
            .bind(id)
            .fetch_optional(&mut *self.db.acquire().await.unwrap())
            .await
            .unwrap()
    }

    /// The dead letters, in their order.
    pub async fn letters(&self) -> Vec<Letter> {
        let letters: Vec<(String, Vec<u8>, String, String)> =
            sqlx::query_as("SELECT message_key, payload, kind, state FROM dead_letters ORDER BY id")
                .fetch_all(&mut *self.db.acquire().await.unwrap())
                .await
                .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        letters.into_iter().map(|(key, payload, kind, state)| (key, text(payload), kind, state)).collect()
    }

    pub async fn until_letters(&self, expected: &[Letter]) {
        eventually(&format!("the letters are {expected:?}"), || async {
            (self.letters().await == expected).then_some(())
        })
        .await;
    }

    /// The parked keys.
    pub async fn parked(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT message_key FROM inbox_parked ORDER BY message_key")
            .fetch_all(&mut *self.db.acquire().await.unwrap())
            .await
            .unwrap()
    }

    pub async fn until_parked(&self, expected: &[&str]) {
        eventually(&format!("the parked keys are {expected:?}"), || async {
            (self.parked().await == expected).then_some(())
        })
        .await;
    }

    /// Lets the group begin with the first record again. Waits until nobody is in it: one that leaves a Kafka that is
    /// slow stays in it for as long as its session.
    pub async fn rewind(&self) {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", self.world.brokers())
            .set("group.id", format!("{}.order", self.world.topic_prefix()));
        let topic = self.topic();
        let commit = move || {
            let client: BaseConsumer = settings.create().unwrap();
            let mut begin = TopicPartitionList::new();
            for partition in 0..4 {
                begin.add_partition_offset(&topic, partition, Offset::Offset(0)).unwrap();
            }
            client.commit(&begin, CommitMode::Sync).is_ok()
        };
        eventually("nobody is in the group", || async {
            tokio::task::spawn_blocking(commit.clone()).await.unwrap().then_some(())
        })
        .await;
    }

    /// The offsets that the group has committed, of all partitions together.
    pub async fn committed(&self) -> i64 {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", self.world.brokers())
            .set("group.id", format!("{}.order", self.world.topic_prefix()));
        let topic = self.topic();
        let fetch = move || {
            let client: BaseConsumer = settings.create().unwrap();
            let mut all = TopicPartitionList::new();
            for partition in 0..4 {
                all.add_partition(&topic, partition);
            }
            let committed = client.committed_offsets(all, Duration::from_secs(10)).unwrap();
            let offsets = committed.elements().into_iter().filter_map(|element| element.offset().to_raw());
            // Negative where nothing is committed.
            offsets.map(|offset| offset.max(0)).sum::<i64>()
        };
        tokio::task::spawn_blocking(fetch).await.unwrap()
    }

    /// The copies in Kafka, once there are so many.
    pub async fn copies(&self, count: usize) -> Vec<Copied> {
        let reader: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.world.brokers())
            .set("group.id", format!("{}.reader", self.world.topic_prefix()))
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        reader.subscribe(&[&format!("{}.order.dlq", self.topic())]).unwrap();
        let mut copies = Vec::new();
        while copies.len() < count {
            let copy = tokio::time::timeout(Duration::from_secs(30), reader.recv()).await.expect("a copy").unwrap();
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
            let headers = copy.headers().unwrap().iter();
            let headers = headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
            copies.push((text(copy.key()), text(copy.payload()), headers.collect()));
        }
        copies
    }
}
