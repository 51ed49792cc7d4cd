//! Messages take effect in the order of their key, and a repeat is left to the handler.

use crate::bench::Bench;
use stampede_testkit::KafkaLink;
use std::time::Duration;
use tokio::time::timeout;

/// How long a consumer may take to leave: three seconds of waiting for Kafka, and some for a machine that stands still.
const LEAVES_WITHIN: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_dropped_in_its_batch_and_left_to_the_handler_later() {
    let bench = Bench::new().await;
    let ids = [bench.send("a", "one").await, bench.send("a", "two").await];
    bench.send_again(&ids[0], "a", "one").await;
    bench.send_again(&ids[1], "a", "two").await;
    bench.send("a", "three").await;
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one", "two", "three"]).await;
    assert_eq!((bench.calls(&ids[0]).await, bench.calls(&ids[1]).await), (1, 1));
    // In a batch of its own, and something behind it that shows when it has been seen.
    bench.send_again(&ids[1], "a", "two").await;
    bench.send("a", "four").await;
    bench.until_notes("a", &["one", "two", "three", "four"]).await;
    assert_eq!((bench.calls(&ids[0]).await, bench.calls(&ids[1]).await), (1, 2));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_the_version_of_its_aggregate_and_leaves_no_record() {
    let bench = Bench::new().await;
    let (stop, running) = bench.start_consumer();
    bench.send_typed("m0", "stampede.message.v1.PaymentPondered", "a", "of no interest").await;
    bench.send("a", "taken").await;
    bench.until_notes("a", &["taken"]).await;
    let mut conn = bench.db.acquire().await.unwrap();
    let sequence: i64 = sqlx::query_scalar("SELECT sequence FROM notes").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(sequence, 7);
    let recorded: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM inbox").fetch_one(&mut *conn).await.unwrap();
    assert_eq!((recorded, bench.letters().await), (0, Vec::new()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_takes_no_message_of_another_partition_with_it() {
    let bench = Bench::new().await;
    // One message for each of many keys: every partition has the offset of the poison.
    bench.send("poisoned", "poison").await;
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        bench.send(key, "fine").await;
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
    bench.send("a", "one").await;
    bench.until_notes("a", &["one"]).await;
    killed.abort();
    bench.send("a", "two").await;
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one", "two"]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_stops_in_time_if_kafka_falls_silent_and_the_next_one_goes_on() {
    let bench = Bench::new().await;
    let link = KafkaLink::open().await.unwrap();
    let (stop, task) = bench.start_consumer_of(link.brokers());
    bench.send("a", "one").await;
    bench.until_notes("a", &["one"]).await;
    link.freeze();
    // It comes while Kafka is silent for the one that leaves.
    bench.send("a", "two").await;
    stop.cancel();
    timeout(LEAVES_WITHIN, task).await.expect("it ends within the drain").unwrap();
    assert_eq!(bench.notes("a").await, ["one"]);
    link.thaw();

    let (stop, task) = bench.start_consumer_of(link.brokers());
    bench.until_notes("a", &["one", "two"]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_topic_may_be_compressed_with_is_read() {
    let bench = Bench::new().await;
    let (stop, task) = bench.start_consumer();
    let long = "again and again ".repeat(200);
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        bench.send_compressed(compression, compression, &long).await;
        bench.until_notes(compression, &[long.as_str()]).await;
    }
    stop.cancel();
    task.await.unwrap();
}
