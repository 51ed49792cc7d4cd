//! The order of each aggregate, with relays that are killed, stand still, are stopped by a signal, go on, join and are
//! cut off from their servers; and a control that shows that a loss of order would be seen.

use crate::bench::{Bench, Running, message};
use futures_util::future::join_all;
use rdkafka::message::{Header, OwnedHeaders};
use stampede_db::{Database, DbConfig, Statement};
use stampede_kafka::{Producer, Record};
use stampede_outbox::append;
use stampede_testkit::{KafkaLink, MeshBuilder, Proxy, Service, eventually};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};
use tokio::time::sleep;

/// Aggregates that all write at once.
const HOT: usize = 8;
/// Parts that the messages are written in, with something happening to the relays in between.
const PARTS: i64 = 5;
/// Aggregates of which every relay has some, whatever partitions it leases.
const WIDE: usize = 64;
/// How many relays have leases.
const OWNERS: &str = "SELECT COUNT(DISTINCT NULLIF(owner, '')) FROM outbox_leases";

/// Versions of each aggregate in one part.
fn versions_of_part() -> i64 {
    let messages = std::env::var("STAMPEDE_TEST_MESSAGES").map_or(2_000, |count| count.parse::<i64>().unwrap());
    (messages / i64::try_from(HOT).unwrap() / PARTS).max(1)
}

/// Writes these versions of each aggregate, all aggregates at once, and wakes these relays, of which there may be none.
async fn write(bench: &Bench, relays: &[&Running], aggregates: usize, versions: RangeInclusive<i64>) {
    let writers = (0..aggregates).map(|aggregate| {
        let versions = versions.clone();
        async move {
            for version in versions {
                bench.write(aggregate, version).await;
                if let Some(relay) = relays.get(aggregate % relays.len().max(1)) {
                    relay.outbox.wake();
                }
            }
        }
    });
    join_all(writers).await;
}

async fn write_part(bench: &Bench, relays: &[&Running], part: i64) {
    let of_part = versions_of_part();
    write(bench, relays, HOT, part * of_part + 1..=(part + 1) * of_part).await;
}

/// How many messages came after a later one of their aggregate.
fn inversions(received: &BTreeMap<String, Vec<i64>>) -> usize {
    received.values().map(|versions| versions.windows(2).filter(|pair| pair[0] > pair[1]).count()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_die_and_stand_still_lose_nothing_and_keep_the_order() {
    let bench = Bench::new().await;
    let [first, second, third, fourth] = [(); 4].map(|()| bench.start_relay());
    write_part(&bench, &[&first, &second, &third, &fourth], 0).await;
    // As a power cut.
    first.task.abort();
    write_part(&bench, &[&second, &third, &fourth], 1).await;
    second.freeze();
    write_part(&bench, &[&third, &fourth], 2).await;
    let fifth = bench.start_relay();
    // Its partitions are taken over, and it does not know.
    bench.settled().await;
    second.thaw();
    write_part(&bench, &[&second, &third, &fourth, &fifth], 3).await;
    // For less than a lease.
    third.freeze();
    fourth.freeze();
    write_part(&bench, &[&second, &fifth], 4).await;
    sleep(Duration::from_secs(2)).await;
    third.thaw();
    fourth.thaw();
    bench.settled().await;

    bench.assert_all_in_order(HOT, versions_of_part() * PARTS).await;
    for relay in [second, third, fourth, fifth] {
        relay.stop().await;
    }
    let lost = inversions(&competed_for(&bench).await);
    assert!(lost > 0, "what sees no inversion here would see none of a relay");
}

/// Waits until the statement counts so many owners of leases.
async fn owned_by(bench: &Bench, what: &str, owners: i64, sql: &'static str) {
    eventually(what, || async { (bench.count(sql).await == owners).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_are_cut_off_from_their_servers_lose_nothing_and_keep_the_order() {
    const OWNERS_OF_UNSENT: &str = "SELECT COUNT(DISTINCT owner) FROM outbox JOIN outbox_leases USING (partition_no) \
        WHERE outbox.id > floor_id";
    let bench = Bench::new().await;
    let database = Proxy::to_url(&bench.world.service_database_url(Service::Event)).await.unwrap();
    let kafka = KafkaLink::open().await.unwrap();
    let db = Database::connect(database.url(), DbConfig::default()).await.unwrap();
    let without_database = bench.start_relay_on(bench.world.brokers(), db);
    let without_kafka = bench.start_relay_to(kafka.brokers());
    let [third, fourth] = [(); 2].map(|()| bench.start_relay());
    let all = [&without_database, &without_kafka, &third, &fourth];
    owned_by(&bench, "each relay has leases", 4, OWNERS).await;
    write(&bench, &all, WIDE, 1..=2).await;
    bench.settled().await;

    let cut = async {
        // Some are on their way by then.
        sleep(Duration::from_millis(20)).await;
        database.freeze_now();
        kafka.freeze();
    };
    tokio::join!(write(&bench, &all, WIDE, 3..=4), cut);
    owned_by(&bench, "the leases of the relay without its database are taken over", 3, OWNERS).await;
    write(&bench, &[&third, &fourth], WIDE, 5..=6).await;
    // The relay without Kafka keeps its leases, and so what it has not sent.
    owned_by(&bench, "all is sent but what the relay without Kafka has", 1, OWNERS_OF_UNSENT).await;

    // Both still have what they were about to send.
    database.thaw();
    kafka.thaw();
    write(&bench, &all, WIDE, 7..=8).await;
    bench.settled().await;
    bench.assert_all_in_order(WIDE, 8).await;
    for relay in [without_database, without_kafka, third, fourth] {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_process_is_stopped_by_a_signal_and_goes_on_later_loses_nothing_and_keeps_the_order() {
    let bench = Bench::new().await;
    // Each has a relay of this outbox.
    let mesh = MeshBuilder::default().replicas(Service::Event, 2).start(&bench.world, [Service::Event]).await.unwrap();
    owned_by(&bench, "each process has leases", 2, OWNERS).await;
    let stop = async {
        // Some are on their way by then.
        sleep(Duration::from_millis(100)).await;
        mesh.freeze(Service::Event, 0).unwrap();
    };
    tokio::join!(write(&bench, &[], WIDE, 1..=4), stop);
    owned_by(&bench, "the leases of the stopped process are taken over", 1, OWNERS).await;
    write(&bench, &[], WIDE, 5..=6).await;
    bench.settled().await;

    // It still has what it was about to send, and has to find out that its leases are gone.
    mesh.thaw(Service::Event, 0).unwrap();
    write(&bench, &[], WIDE, 7..=8).await;
    owned_by(&bench, "it has leases again", 2, OWNERS).await;
    bench.settled().await;
    bench.assert_all_in_order(WIDE, 8).await;
    mesh.stop().await.unwrap();
}

/// Writes two versions of one aggregate, the first of which commits late, when others are long written: at that moment
/// the second one is written.
async fn write_late_and_next(bench: &Bench, relay: &Running, aggregate: usize, others: usize) {
    let mut late = bench.db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *late).await.unwrap();
    append(&mut late, &[message(aggregate, 1)]).await.unwrap();
    for other in 0..others {
        bench.write(10_000 + aggregate * 100 + other, 1).await;
        relay.outbox.wake();
    }
    sqlx::raw_sql("COMMIT").execute(&mut *late).await.unwrap();
    bench.write(aggregate, 2).await;
    relay.outbox.wake();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_late_is_sent_before_its_successor() {
    const AGGREGATES: usize = 200;
    const OTHERS: usize = 2;
    let bench = Bench::new().await;
    let relay = bench.start_relay();
    for aggregate in 0..AGGREGATES {
        write_late_and_next(&bench, &relay, aggregate, OTHERS).await;
    }
    let received = bench.received(AGGREGATES * (2 + OTHERS)).await;
    assert_eq!(inversions(&received), 0);
    relay.stop().await;
}

/// As a server of a cluster: it leaves two ids out behind each row.
async fn count_in_steps(bench: &Bench) {
    for aggregate in 0..900_u64 {
        let mut insert = Statement::new(
            "INSERT INTO outbox (id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, \
             created_us) SELECT MAX(id) + 3, 3, 'event', ",
        );
        insert.push_bind(format!("evt_{}", 1_000 + aggregate));
        insert.push(", 1, 'stampede.message.v1.EventOpened', '', MAX(created_us) FROM outbox");
        insert.execute(&mut bench.db.acquire().await.unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_many_gaps_what_commits_late_is_sent_before_its_successor() {
    const AGGREGATES: usize = 20;
    const OTHERS: usize = 2;
    let bench = Bench::new().await;
    bench.write(900, 1).await;
    let relay = bench.start_relay();
    count_in_steps(&bench).await;
    for aggregate in 0..AGGREGATES {
        write_late_and_next(&bench, &relay, aggregate, OTHERS).await;
    }
    let received = bench.received(901 + AGGREGATES * (2 + OTHERS)).await;
    assert_eq!(inversions(&received), 0);
    bench.settled().await;
    relay.stop().await;
}

fn text<'a>(key: &'a str, value: &'a [u8]) -> Header<'a, &'a [u8]> {
    Header { key, value: Some(value) }
}

/// Takes rows that no other reader has, ten at a time, and sends them to the topic, until there are none.
async fn compete(bench: &Bench, topic: &str, pause: Duration) {
    let producer = Producer::new(bench.world.brokers()).unwrap();
    let mut conn = bench.db.acquire().await.unwrap();
    loop {
        sqlx::raw_sql("BEGIN").execute(&mut *conn).await.unwrap();
        let take = "SELECT id, aggregateid, aggregate_version FROM outbox ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED";
        let rows: Vec<(u64, String, i64)> = sqlx::query_as(take).fetch_all(&mut *conn).await.unwrap();
        if rows.is_empty() {
            break;
        }
        sleep(pause).await;
        for (_, key, version) in &rows {
            let version = version.to_string();
            let headers =
                OwnedHeaders::new().insert(text("ce_sequence", version.as_bytes())).insert(text("ce_id", b"any"));
            let record = Record { topic, partition: None, key: Some(key.as_bytes()), payload: None, headers };
            producer.send(record).unwrap().await.unwrap();
        }
        let mut delete = Statement::new("DELETE FROM outbox WHERE id IN ");
        delete.push_list(rows.iter().map(|(id, ..)| *id)).execute(&mut conn).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *conn).await.unwrap();
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.unwrap();
}

/// Lets readers compete for messages that relays have sent before, to another topic. Returns what came of each
/// aggregate.
async fn competed_for(bench: &Bench) -> BTreeMap<String, Vec<i64>> {
    let mut conn = bench.db.acquire().await.unwrap();
    let behind: Option<u64> = sqlx::query_scalar("SELECT id FROM outbox ORDER BY id LIMIT 1 OFFSET 2000")
        .fetch_optional(&mut *conn)
        .await
        .unwrap();
    let mut delete = Statement::new("DELETE FROM outbox WHERE id >= ");
    delete.push_bind(behind.unwrap_or(u64::MAX)).execute(&mut conn).await.unwrap();
    drop(conn);
    let messages = bench.count("SELECT COUNT(*) FROM outbox").await;
    let topic = Service::Order.topic(bench.world.topic_prefix());
    let [slow, fast] = [50, 0].map(Duration::from_millis);
    tokio::join!(compete(bench, &topic, slow), compete(bench, &topic, fast), compete(bench, &topic, fast));
    bench.received_from(&topic, usize::try_from(messages).unwrap()).await
}
