//! While a server is at fault the consumer waits, and sets nothing aside.

use crate::bench::{A_WHILE, Bench, letter};
use stampede_testkit::eventually;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_away_is_waited_for() {
    let bench = Bench::new().await;
    let (stop, task) = bench.start_consumer();
    bench.send("a", "one").await;
    bench.until_notes("a", &["one"]).await;
    bench.sql("RENAME TABLE notes TO notes_away").await;
    for text in ["two", "three"] {
        bench.send("a", text).await;
        bench.send("b", text).await;
    }
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((bench.letters().await, bench.parked().await), (Vec::new(), Vec::new()));
    bench.sql("RENAME TABLE notes_away TO notes").await;
    bench.until_notes("a", &["one", "two", "three"]).await;
    bench.until_notes("b", &["two", "three"]).await;
    assert!(bench.letters().await.is_empty());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_and_the_park_of_its_key_are_one_and_prove_that_the_database_is_well() {
    let bench = Bench::new().await;
    bench
        .sql(
            "CREATE TRIGGER no_park BEFORE INSERT ON inbox_parked FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more parks'",
        )
        .await;
    for text in ["one", "impossible", "three"] {
        bench.send("a", text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_notes("a", &["one"]).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((bench.letters().await, bench.parked().await), (Vec::new(), Vec::new()));
    bench.sql("DROP TRIGGER no_park").await;
    let letters = [letter("a", "impossible", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")];
    bench.until_letters(&letters).await;
    assert_eq!((bench.parked().await, bench.notes("a").await), (vec!["a".to_owned()], vec!["one".to_owned()]));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_too_long_gets_smaller() {
    /// Together they take longer than the consumer has.
    const MESSAGES: usize = 60;
    let bench = Bench::new().await;
    for _ in 0..MESSAGES {
        bench.send("a", "slow").await;
    }
    let (stop, task) = bench.start_impatient(Duration::from_secs(1)).await;
    bench.until_notes("a", &["slow"; MESSAGES]).await;
    assert!(bench.letters().await.is_empty());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_of_a_slow_batch_is_committed_while_the_rest_waits() {
    /// Together they take longer than the consumer has.
    const MESSAGES: usize = 60;
    let bench = Bench::new().await;
    for _ in 0..MESSAGES {
        bench.send("a", "slow").await;
    }
    // The last one is waited for without end.
    bench
        .sql(
            "CREATE TRIGGER not_yet BEFORE INSERT ON notes FOR EACH ROW IF NEW.message_id = 'm60' THEN \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not yet'; END IF",
        )
        .await;
    let (stop, task) = bench.start_impatient(Duration::from_secs(1)).await;
    eventually("a part of it is committed", || async { (1..60).contains(&bench.committed().await).then_some(()) })
        .await;
    bench.sql("DROP TRIGGER not_yet").await;
    bench.until_notes("a", &["slow"; MESSAGES]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_a_newer_release_holds_up_its_own_key_alone() {
    let bench = Bench::new().await;
    for text in ["newer", "behind it"] {
        bench.send("a", text).await;
    }
    let others: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &others {
        bench.send(key, "fine").await;
    }
    let (stop, task) = bench.start_consumer();
    for key in &others {
        bench.until_notes(key, &["fine"]).await;
    }
    assert_eq!((bench.letters().await, bench.notes("a").await), (Vec::new(), Vec::new()));
    bench.sql("INSERT INTO medicine VALUES ()").await;
    bench.until_notes("a", &["newer", "behind it"]).await;
    assert!(bench.letters().await.is_empty());
    stop.cancel();
    task.await.unwrap();
}
