//! Rows: those of the version before, and those that are purged.

use crate::bench::Bench;
use stampede_testkit::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_an_id_of_its_own_and_one_of_the_version_before_that_of_its_row() {
    let bench = Bench::new().await;
    bench.write(1, 1).await;
    bench
        .run(
            "INSERT INTO outbox (id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us) \
             VALUES (7, 3, 'event', 'evt_2', 1, 'stampede.message.v1.EventOpened', '', 1700000000000000)",
        )
        .await;
    let relay = bench.start_relay();
    let ids: Vec<String> = bench.first_deliveries(2).await.into_iter().map(|(_, _, id)| id).collect();
    assert!(ids.contains(&"7".to_owned()), "{ids:?}");
    let mut conn = bench.db.acquire().await.unwrap();
    let own: String = sqlx::query_scalar("SELECT message_id FROM outbox WHERE aggregateid = 'evt_1'")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    assert!(ids.contains(&own), "{ids:?} and {own}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_takes_the_partitions_of_one_of_the_version_before() {
    let bench = Bench::new().await;
    bench.run("UPDATE outbox_leases SET owner = '0190d5a4-old', expires_us = 9000000000000000").await;
    bench.write(1, 1).await;
    let relay = bench.start_relay();
    assert_eq!(bench.received(1).await.len(), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_long_ago_is_purged_and_what_is_unsent_is_not() {
    let bench = Bench::new().await;
    for aggregate in 0..3 {
        bench.write(aggregate, 1).await;
    }
    // Of two that are old one was sent; all partitions but the one that goes with the purge are another's.
    for sql in [
        "UPDATE outbox SET created_us = 1 WHERE aggregateid IN ('evt_0', 'evt_1')",
        "UPDATE outbox_leases SET floor_id = (SELECT id FROM outbox WHERE aggregateid = 'evt_0')",
        "UPDATE outbox_leases SET owner = '2-another', expires_us = 9000000000000000 WHERE partition_no > 0",
    ] {
        bench.run(sql).await;
    }
    let relay = bench.start_relay();
    let left = "SELECT COUNT(*) FROM outbox";
    eventually("one is purged", || async { (bench.count(left).await < 3).then_some(()) }).await;
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox WHERE aggregateid IN ('evt_1', 'evt_2')").await, 2);
    relay.stop().await;
}
