//! Brokers that do what a real one cannot be asked for: those that the Kafka client comes with for its own tests.

use crate::bench::Bench;
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use stampede_testkit::eventually;
use std::time::Duration;
use tokio::time::timeout;

/// All brokers.
const ALL: i32 = -1;
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(3_600);

fn brokers_of(bench: &Bench) -> MockCluster<'static, DefaultProducerContext> {
    let brokers = MockCluster::new(1).unwrap();
    brokers.create_topic(&bench.topic(), 4, 1).unwrap();
    brokers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_is_broken_for_good_is_made_anew_and_sends_what_is_left() {
    let bench = Bench::without_topics().await;
    let brokers = brokers_of(&bench);
    let relay = bench.start_relay_to(&brokers.bootstrap_servers());
    bench.write(1, 1).await;
    bench.settled().await;
    // As one that has lost what it had acknowledged.
    brokers.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    bench.write(1, 2).await;
    relay.outbox.wake();
    eventually("the producer is broken", || async { relay.outbox.is_stalled().then_some(()) }).await;
    bench.settled().await;
    assert!(!relay.outbox.is_stalled(), "it has another one");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_stops_in_time_if_kafka_falls_silent_and_leaves_what_was_on_its_way_to_the_next() {
    const MESSAGES: usize = 50;
    let bench = Bench::new().await;
    let brokers = brokers_of(&bench);
    let relay = bench.start_relay_to(&brokers.bootstrap_servers());
    bench.write(0, 1).await;
    bench.settled().await;
    brokers.broker_round_trip_time(ALL, NEVER).unwrap();
    for aggregate in 1..=MESSAGES {
        bench.write(aggregate, 1).await;
        relay.outbox.wake();
    }
    timeout(Duration::from_secs(9), relay.stop()).await.expect("it ends within the drain");
    assert_eq!(bench.count("SELECT COUNT(*) FROM outbox_leases WHERE expires_us > 0").await, 0);
    assert_eq!(bench.unsent().await, i64::try_from(MESSAGES).unwrap());
    let next = bench.start_relay();
    assert_eq!(bench.received(MESSAGES).await.len(), MESSAGES);
    next.stop().await;
}
