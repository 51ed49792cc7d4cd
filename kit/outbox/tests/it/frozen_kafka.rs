//! A Kafka that falls silent with messages on their way.

use crate::bench::Bench;
use stampede_testkit::KafkaLink;
use std::time::Duration;
use tokio::time::sleep;

const AGGREGATES: usize = 20;
const VERSIONS: i64 = 6;
/// How long it is silent: longer than the leases of the relay last, which it has to renew meanwhile.
const SILENCE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_to_a_kafka_that_falls_silent_is_neither_lost_nor_overtaken() {
    let bench = Bench::new().await;
    let link = KafkaLink::open().await.unwrap();
    let relay = bench.start_relay_to(link.brokers());
    for aggregate in 0..AGGREGATES {
        bench.write(aggregate, 1).await;
    }
    bench.settled().await;
    link.freeze();
    for version in 2..=VERSIONS {
        for aggregate in 0..AGGREGATES {
            bench.write(aggregate, version).await;
            relay.outbox.wake();
        }
    }
    sleep(SILENCE).await;
    let written = i64::try_from(AGGREGATES).unwrap() * (VERSIONS - 1);
    assert_eq!(bench.unsent().await, written, "nobody has acknowledged any");
    link.thaw();

    // By itself, with the same producer.
    bench.settled().await;
    bench.assert_all_in_order(AGGREGATES, VERSIONS).await;
    // It has waited, and not sent all of it again and again.
    let (records, all) = (bench.records(), i64::try_from(AGGREGATES).unwrap() * VERSIONS);
    assert!(records < 2 * all, "{records} records of {all} messages");
    relay.stop().await;
}
