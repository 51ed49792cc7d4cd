//! One relay or two: what comes late, what is left when it stops, where the next one begins.

use crate::bench::{Bench, message};
use stampede_db::{Database, DbConfig};
use stampede_outbox::append;
use stampede_testkit::{Proxy, Service, eventually};
use std::{net::TcpListener, time::Duration};
use tokio::time::{sleep, timeout};

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
    bench.assert_all_in_order(AGGREGATES, VERSIONS).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_commits_late_is_not_passed_over() {
    let bench = Bench::new().await;
    // The sooner work is given up, the sooner is an id that no transaction has.
    let config = DbConfig { work_timeout: Duration::from_secs(2), ..DbConfig::default() };
    let quick = Database::connect(&bench.world.service_database_url(Service::Event), config).await.unwrap();
    let relay = bench.start_relay_on(bench.world.brokers(), quick.clone());
    // Takes the lower id and commits only after the higher ones have been sent, and after any id is given up that no
    // transaction has.
    let mut late = bench.db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *late).await.unwrap();
    append(&mut late, &[message(1, 1)]).await.unwrap();
    for aggregate in 2..=20 {
        bench.write(aggregate, 1).await;
    }
    relay.outbox.wake();
    assert_eq!(bench.received(19).await.len(), 19);
    sleep(quick.work_timeout() + Duration::from_secs(4)).await;
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox_leases WHERE floor_id > 0").await, 0, "floors wait for it");
    sqlx::raw_sql("COMMIT").execute(&mut *late).await.unwrap();
    let all = bench.received(20).await;
    assert_eq!(all.get("evt_1"), Some(&vec![1]));
    bench.settled().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_were_rolled_back_do_not_hold_the_floors_for_good() {
    let bench = Bench::new().await;
    let relay = bench.start_relay();
    bench.write(1, 1).await;
    let mut gone = bench.db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *gone).await.unwrap();
    append(&mut gone, &[message(2, 1), message(3, 1)]).await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut *gone).await.unwrap();
    bench.write(4, 1).await;
    relay.outbox.wake();
    assert_eq!(bench.received(2).await.len(), 2);
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox").await, 2);
    bench.settled().await;
    relay.stop().await;
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
    relay.stop().await;
    assert_eq!(bench.records(), 201);
    assert_eq!(bench.unsent().await, 0, "the floors are written down");
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox_leases WHERE expires_us > 0").await, 0);
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox_relays").await, 0);
}

/// A relay to such a Kafka stops in time, and the next one sends what it has left.
async fn stops_in_time(kafka: &str) {
    let bench = Bench::new().await;
    let relay = bench.start_relay_to(kafka);
    bench.write(1, 1).await;
    let held = "SELECT COUNT(*) FROM outbox_leases WHERE expires_us > 0";
    eventually("it holds all leases", || async { (bench.count(held).await == 16).then_some(()) }).await;
    timeout(Duration::from_secs(9), relay.stop()).await.expect("it ends within the drain");
    assert_eq!((bench.count(held).await, bench.unsent().await), (0, 1), "{kafka}");
    let next = bench.start_relay();
    assert_eq!(bench.received(1).await.len(), 1);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stops_in_time_if_kafka_is_silent_and_leaves_its_messages_to_the_next() {
    // The kernel takes connections for it, and nobody answers them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    tokio::join!(stops_in_time("127.0.0.1:1"), stops_in_time(&address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_takes_over_begins_at_the_floor() {
    let bench = Bench::new().await;
    let first = bench.start_relay();
    for version in 1..=10 {
        bench.write(1, version).await;
    }
    bench.settled().await;
    first.stop().await;
    assert_eq!(bench.records(), 10);
    bench.run("UPDATE outbox_leases SET floor_id = (SELECT id FROM outbox WHERE aggregate_version = 6)").await;
    let second = bench.start_relay();
    bench.settled().await;
    second.stop().await;
    assert_eq!(bench.records(), 14, "the last four have come again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_share_the_partitions_and_one_that_is_new_repeats_nothing() {
    let bench = Bench::new().await;
    let first = bench.start_relay();
    for aggregate in 0..40 {
        bench.write(aggregate, 1).await;
    }
    bench.settled().await;
    let second = bench.start_relay();
    let owners = "SELECT COUNT(*) FROM (SELECT owner FROM outbox_leases GROUP BY owner HAVING COUNT(*) = 8) AS halves";
    eventually("each has half of them", || async { (bench.count(owners).await == 2).then_some(()) }).await;
    for aggregate in 0..40 {
        bench.write(aggregate, 2).await;
    }
    bench.settled().await;
    assert_eq!(bench.records(), 80);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_connects_anew_gives_its_leases_new_epochs_and_goes_on_from_the_floors() {
    let bench = Bench::new().await;
    let link = Proxy::to_url(&bench.world.service_database_url(Service::Event)).await.unwrap();
    let db = Database::connect(link.url(), DbConfig::default()).await.unwrap();
    let relay = bench.start_relay_on(bench.world.brokers(), db);
    bench.write(1, 1).await;
    bench.settled().await;
    let before = bench.count("SELECT CAST(MAX(epoch) AS SIGNED) FROM outbox_leases").await;
    // To another server for all that it knows.
    link.cut();
    eventually("every lease has another epoch", || async {
        let least = bench.count("SELECT CAST(MIN(epoch) AS SIGNED) FROM outbox_leases").await;
        (least > before).then_some(())
    })
    .await;
    bench.write(1, 2).await;
    bench.settled().await;
    assert_eq!(bench.received(2).await.get("evt_1"), Some(&vec![1, 2]));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_leases_take_long_to_renew_sends_all_and_each_message_once() {
    const AGGREGATES: usize = 4;
    const VERSIONS: i64 = 25;
    let bench = Bench::new().await;
    // A second and a half for the sixteen of them.
    bench.run("CREATE TRIGGER slow_lease BEFORE UPDATE ON outbox_leases FOR EACH ROW DO SLEEP(0.1)").await;
    let relay = bench.start_relay();
    for version in 1..=VERSIONS {
        for aggregate in 0..AGGREGATES {
            bench.write(aggregate, version).await;
            relay.outbox.wake();
        }
    }
    bench.settled().await;
    assert_eq!(bench.records(), i64::try_from(AGGREGATES).unwrap() * VERSIONS);
    relay.stop().await;
}
