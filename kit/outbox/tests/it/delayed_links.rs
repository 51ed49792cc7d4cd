//! Links that are slow: all takes longer, and goes on, without a lost lease and without a flood of repeats.

use crate::bench::{Bench, message};
use stampede_db::{Database, DbConfig, DbError};
use stampede_outbox::{OutboxMessage, append};
use stampede_testkit::{KafkaLink, Proxy, Service};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const AGGREGATES: usize = 10;
/// All messages of them, of this many bytes each, are less than a relay reads at a time. Over the slow link they take
/// longer than the work time-out: a delay for each 64 KiB, of which there are ten and more.
const VERSIONS: i64 = 50;
const PAYLOAD_BYTES: usize = 1_400;
const DATABASE_DELAY: Duration = Duration::from_millis(100);
const WORK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the leases are looked at, and after how long without a look the machine has stood still.
const POLL: Duration = Duration::from_millis(100);
const STALL: Duration = Duration::from_secs(1);
/// An acknowledgement takes twice as long.
const KAFKA_DELAY: Duration = Duration::from_millis(900);
const VERSIONS_TO_SLOW_KAFKA: i64 = 6;

/// Writes all versions but the first, which can be read at once.
async fn write_large(bench: &Bench) {
    let versions = (2..=VERSIONS).flat_map(|version| (0..AGGREGATES).map(move |aggregate| message(aggregate, version)));
    let large = |message: OutboxMessage| OutboxMessage { payload: vec![7; PAYLOAD_BYTES], ..message };
    let messages: Vec<OutboxMessage> = versions.map(large).collect();
    let mut conn = bench.db.acquire().await.unwrap();
    append(&mut conn, &messages).await.unwrap();
}

/// Reads all messages in one go.
async fn read_all(db: &Database) -> Result<usize, DbError> {
    let read = db.run("read_all", |mut conn| async move {
        let payloads: Vec<Vec<u8>> = sqlx::query_scalar("SELECT payload FROM outbox").fetch_all(&mut *conn).await?;
        Ok::<_, DbError>(payloads.len())
    });
    read.await
}

/// Fails once a lease has expired, unless the machine has stood still: then this was late as well, and the relay is not
/// at fault, until it has renewed them.
async fn watch_leases(bench: &Bench) {
    let mut last = Instant::now();
    let mut is_excused = false;
    loop {
        let expired = "SELECT COUNT(*) FROM outbox_leases WHERE expires_us <= UNIX_TIMESTAMP(NOW(6)) * 1000000";
        let expired = bench.count(expired).await;
        is_excused = last.elapsed() > STALL || (is_excused && expired > 0);
        assert!(is_excused || expired == 0, "{expired} leases have expired");
        last = Instant::now();
        sleep(POLL).await;
    }
}

/// Waits until all is sent, and fails if a lease expires before.
async fn settled_without_a_lost_lease(bench: &Bench) {
    tokio::select! {
        () = bench.settled() => {}
        () = watch_leases(bench) => {}
    }
}

fn assert_no_flood(bench: &Bench, versions: i64) {
    let (records, all) = (bench.records(), i64::try_from(AGGREGATES).unwrap() * versions);
    assert!(records < 2 * all, "{records} records of {all} messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_database_is_slow_reads_less_at_a_time_and_keeps_its_leases() {
    let bench = Bench::new().await;
    let link = Proxy::to_url(&bench.world.service_database_url(Service::Event)).await.unwrap();
    let config = DbConfig { work_timeout: WORK_TIMEOUT, ..DbConfig::default() };
    let db = Database::connect(link.url(), config).await.unwrap();
    let relay = bench.start_relay_on(bench.world.brokers(), db.clone());
    for aggregate in 0..AGGREGATES {
        bench.write(aggregate, 1).await;
    }
    bench.settled().await;

    link.slow_down(DATABASE_DELAY);
    write_large(&bench).await;
    relay.outbox.wake();
    let (whole, ()) = tokio::join!(read_all(&db), settled_without_a_lost_lease(&bench));
    assert!(matches!(whole, Err(DbError::TimedOut { .. })), "the link is not slow enough: {whole:?}");
    bench.assert_all_in_order(AGGREGATES, VERSIONS).await;
    assert_no_flood(&bench, VERSIONS);
    link.slow_down(Duration::ZERO);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_kafka_is_slow_waits_for_it_and_does_not_send_all_again() {
    let bench = Bench::new().await;
    let link = KafkaLink::open().await.unwrap();
    let relay = bench.start_relay_to(link.brokers());
    for aggregate in 0..AGGREGATES {
        bench.write(aggregate, 1).await;
    }
    bench.settled().await;

    link.slow_down(KAFKA_DELAY);
    for version in 2..=VERSIONS_TO_SLOW_KAFKA {
        for aggregate in 0..AGGREGATES {
            bench.write(aggregate, version).await;
            relay.outbox.wake();
        }
    }
    settled_without_a_lost_lease(&bench).await;
    bench.assert_all_in_order(AGGREGATES, VERSIONS_TO_SLOW_KAFKA).await;
    assert_no_flood(&bench, VERSIONS_TO_SLOW_KAFKA);
    link.slow_down(Duration::ZERO);
    relay.stop().await;
}
