//! Every message that the services have published, to be published again; and the state that must not change by it.

use crate::sale::fresh;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders, OwnedMessage},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};
use sqlx::MySqlPool;
use stampede_testkit::{Service, World};
use std::{
    iter,
    time::{Duration, Instant},
};

/// Longest wait for Kafka.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The order in which everything is published again. Messages of one key keep their order, as in Kafka and in every
/// relay. A repeat may come at any later time, and topics are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// Each message twice, one topic after the other.
    EachTwice,
    /// All from the first to the last, one topic after the other.
    FromTheFirst,
    /// The same with the topics in reverse: answers before their questions.
    AnswersFirst,
}

impl Repetition {
    pub const ALL: [Self; 3] = [Self::EachTwice, Self::FromTheFirst, Self::AnswersFirst];
}

/// The records of all topics, each partition in its order.
pub struct History(Vec<(String, Vec<OwnedMessage>)>);

impl History {
    /// Reads the records that the topics have now.
    pub fn of(world: &World) -> Self {
        let topics = Service::ALL.map(|writer| writer.topic(world.topic_prefix()));
        let published = topics.map(|topic| {
            let records = read(world, &topic);
            (topic, records)
        });
        assert!(published.iter().all(|(_, records)| !records.is_empty()), "a service has published nothing");
        Self(published.into())
    }

    /// Reads the messages that a service has published so far under these names.
    pub fn of_names(world: &World, writer: Service, names: &[&str]) -> Self {
        let topic = writer.topic(world.topic_prefix());
        let is_named = |record: &OwnedMessage| {
            let message_type = header(record, "ce_type").unwrap_or_default();
            names.iter().any(|name| message_type.ends_with(&format!(".{name}")))
        };
        let records = read(world, &topic).into_iter().filter(is_named).collect();
        Self(vec![(topic, records)])
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, records)| records.len()).sum()
    }

    /// Publishes everything again as new messages: each record as it was, with another id.
    pub async fn publish_as_new(&self, world: &World) {
        let producer = producer(world);
        for (topic, records) in &self.0 {
            let sent: Vec<_> =
                records.iter().map(|record| send(&producer, topic, record, with_another_id(record))).collect();
            for delivery in sent {
                delivery.await.unwrap().unwrap();
            }
        }
    }

    /// Publishes everything again as repeats: each record as it was, with its id.
    pub async fn publish_again(&self, world: &World, repetition: Repetition) {
        let producer = producer(world);
        let mut topics: Vec<_> = self.0.iter().collect();
        if repetition == Repetition::AnswersFirst {
            topics.reverse();
        }
        let times = if repetition == Repetition::EachTwice { 2 } else { 1 };
        for (topic, records) in topics {
            let again = records.iter().flat_map(|record| iter::repeat_n(record, times));
            let sent =
                again.map(|record| send(&producer, topic, record, record.headers().cloned().unwrap_or_default()));
            let sent: Vec<_> = sent.collect();
            for delivery in sent {
                delivery.await.unwrap().unwrap();
            }
        }
    }
}

fn producer(world: &World) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.brokers()).set("enable.idempotence", "true");
    config.create().unwrap()
}

fn header(record: &OwnedMessage, key: &str) -> Option<String> {
    let found = record.headers()?.iter().find(|header| header.key == key)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

fn with_another_id(record: &OwnedMessage) -> OwnedHeaders {
    let id = fresh();
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    headers.fold(OwnedHeaders::new(), |all, Header { key, value }| {
        let value = if key == "ce_id" { Some(id.as_bytes()) } else { value };
        all.insert(Header { key, value })
    })
}

fn send(producer: &FutureProducer, topic: &str, record: &OwnedMessage, headers: OwnedHeaders) -> DeliveryFuture {
    let again = FutureRecord::to(topic)
        .partition(record.partition())
        .key(record.key().unwrap_or_default())
        .payload(record.payload().unwrap_or_default())
        .headers(headers);
    producer.send_result(again).map_err(|(error, _)| error).unwrap()
}

fn read(world: &World, topic: &str) -> Vec<OwnedMessage> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", world.brokers())
        .set("group.id", format!("{}.history", world.topic_prefix()))
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(topic), MAX_WAIT).unwrap();
    let (mut all, mut wanted) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = client.fetch_watermarks(topic, partition.id(), MAX_WAIT).unwrap();
        all.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
        wanted += usize::try_from(high - low).unwrap();
    }
    client.assign(&all).unwrap();
    let (mut records, until) = (Vec::new(), Instant::now() + MAX_WAIT);
    while records.len() < wanted {
        assert!(Instant::now() < until, "{} of {wanted} records of {topic}", records.len());
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => records.push(record.detach()),
            // Such as a connection that is lost: the client makes another.
            Some(Err(error)) => println!("{topic}: {error}"),
            None => {}
        }
    }
    records
}

/// The state that a repeat must not change: states, money, units, coupons. Not the version of a payment, which counts
/// repeated answers too.
const KEPT: [(Service, &str); 9] = [
    (
        Service::Event,
        "SELECT CONCAT_WS(' ', 'event', HEX(id), CONVERT(state USING utf8mb4), version) FROM events ORDER BY id",
    ),
    (
        Service::Coupon,
        "SELECT CONCAT_WS(' ', 'coupon', HEX(id), CONVERT(state USING utf8mb4), HEX(order_id), rank_no, version) FROM coupons ORDER BY id",
    ),
    (
        Service::Inventory,
        "SELECT CONCAT_WS(' ', 'stock', HEX(item_id), committed_units, gift_committed_units, event_version, opens_at_us, closes_at_us) FROM stock ORDER BY item_id",
    ),
    (
        Service::Inventory,
        "SELECT CONCAT_WS(' ', 'ledger', HEX(order_id), HEX(item_id), CONVERT(state USING utf8mb4), units, gift_units, committed_at_us, released_at_us) FROM ledger ORDER BY order_id, item_id",
    ),
    (
        Service::Order,
        "SELECT CONCAT_WS(' ', 'order', HEX(id), CONVERT(state USING utf8mb4), version, payment_attempts, total_minor, fulfilled_at_us) FROM orders ORDER BY id",
    ),
    (
        Service::Order,
        "SELECT CONCAT_WS(' ', 'line', HEX(order_id), HEX(item_id), units, gift_units) FROM all_order_lines ORDER BY order_id, item_id",
    ),
    (
        Service::Payment,
        "SELECT CONCAT_WS(' ', 'payment', HEX(id), CONVERT(state USING utf8mb4), amount_minor, captured_minor, refunded_minor, captured_attempt) FROM payments ORDER BY id",
    ),
    (
        Service::Payment,
        "SELECT CONCAT_WS(' ', 'attempt', HEX(payment_id), attempt, CONVERT(state USING utf8mb4), HEX(provider_charge_id)) FROM attempts ORDER BY payment_id, attempt",
    ),
    (
        Service::Payment,
        "SELECT CONCAT_WS(' ', 'refund', HEX(payment_id), attempt, CONVERT(state USING utf8mb4), amount_minor) FROM refunds ORDER BY payment_id, attempt",
    ),
];

/// Reads that state, one line a row.
pub async fn kept(world: &World) -> Vec<String> {
    let mut kept = Vec::new();
    for (service, sql) in KEPT {
        let url = format!("{}?ssl-mode=disabled", world.service_database_url(service));
        let pool = MySqlPool::connect(&url).await.unwrap();
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
        assert!(!rows.is_empty(), "{sql} finds nothing");
        kept.extend(rows);
        pool.close().await;
    }
    kept
}
