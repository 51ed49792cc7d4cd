//! What cannot be applied is set aside with its key, and comes back, or does not, as an operator decides.

use crate::bench::{Bench, letter};
use stampede_testkit::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_applied_is_set_aside_and_its_key_waits_behind_it() {
    let bench = Bench::new().await;
    for (key, text) in [("a", "one"), ("a", "poison"), ("a", "three"), ("b", "four")] {
        bench.send(key, text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_notes("b", &["four"]).await;
    bench.until_letters(&[letter("a", "poison", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")]).await;
    assert_eq!((bench.notes("a").await, bench.parked().await), (vec!["one".to_owned()], vec!["a".to_owned()]));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_a_letter_of_its_key_has_taken_effect_once_there_is_one() {
    let bench = Bench::new().await;
    let before = ["slow"; 20];
    for text in before.into_iter().chain(["poison"]) {
        bench.send("a", text).await;
    }
    let (stop, task) = bench.start_consumer();
    bench.until_letters(&[letter("a", "poison", "POISON", "WAITING")]).await;
    assert_eq!(bench.notes("a").await, before);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_messages_those_at_fault_are_found() {
    let bench = Bench::new().await;
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        let text = match n {
            7 => "impossible",
            31 => "panic",
            _ => "fine",
        };
        bench.send(key, text).await;
    }
    let (stop, task) = bench.start_consumer();
    for (n, key) in keys.iter().enumerate() {
        let expected: &[&str] = if n == 7 || n == 31 { &[] } else { &["fine"] };
        bench.until_notes(key, expected).await;
    }
    eventually("both are set aside", || async { (bench.letters().await.len() == 2).then_some(()) }).await;
    bench.until_parked(&["key-31", "key-7"]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_kafka_has_every_header_and_the_reason() {
    let bench = Bench::new().await;
    bench.send("a", "poison").await;
    bench.send_bare("b", "not ours").await;
    bench.send("c", "one").await;
    let (stop, task) = bench.start_consumer();
    bench.until_notes("c", &["one"]).await;
    let mut copies = bench.copies(2).await;
    copies.sort();
    let [(key, payload, headers), (bare_key, bare_payload, bare_headers)] = &copies[..] else { panic!("{copies:?}") };
    assert_eq!((key.as_str(), payload.as_str()), ("a", "poison"));
    let has = |name: &str, value: &[u8]| headers.iter().any(|(key, other)| key == name && other == value);
    assert!(has("ce_id", b"m1") && has("ce_sequence", b"7") && has("of-nobody", b"\xff"), "{headers:?}");
    assert!(has("stampede_dead_letter_reason", b"it says so itself"), "{headers:?}");
    assert_eq!((bare_key.as_str(), bare_payload.as_str()), ("b", "not ours"));
    assert!(bare_headers.iter().any(|(key, _)| key == "stampede_dead_letter_from"), "{bare_headers:?}");
    // The rows stay. The one that is no message parks nothing, and its key is kept as it came.
    assert_eq!(bench.parked().await, ["a"]);
    let bare: (String, Vec<u8>, String) =
        sqlx::query_as("SELECT message_key, record_key, reason FROM dead_letters WHERE kind = 'UNREADABLE'")
            .fetch_one(&mut *bench.db.acquire().await.unwrap())
            .await
            .unwrap();
    assert_eq!((bare.0.as_str(), bare.1.as_slice()), ("", b"b".as_slice()));
    assert!(bare.2.ends_with("has no readable ce_type"), "{}", bare.2);
    stop.cancel();
    task.await.unwrap();
}

/// A consumer that has set a sick message of `a` aside, and one behind it.
async fn sick() -> Bench {
    let bench = Bench::new().await;
    for text in ["one", "sick", "three"] {
        bench.send("a", text).await;
    }
    bench
}

const REPLAY: &str = "UPDATE dead_letters SET state = 'REPLAY' WHERE state = 'WAITING'";
const MEDICINE: &str = "INSERT INTO medicine VALUES ()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_replayed_in_order_and_once_and_then_goes_on() {
    let bench = sick().await;
    let (stop, task) = bench.start_consumer();
    bench.until_letters(&[letter("a", "sick", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")]).await;
    bench.sql(MEDICINE).await;
    bench.sql(REPLAY).await;
    bench.until_notes("a", &["one", "sick", "three"]).await;
    bench.until_parked(&[]).await;
    let replayed = [letter("a", "sick", "POISON", "REPLAYED"), letter("a", "three", "PARKED", "REPLAYED")];
    assert_eq!(bench.letters().await, replayed);
    bench.send("a", "four").await;
    bench.until_notes("a", &["one", "sick", "three", "four"]).await;
    stop.cancel();
    task.await.unwrap();

    // All is read again: what was set aside is neither applied by the consumer nor set aside again.
    bench.rewind().await;
    let (stop, task) = bench.start_consumer();
    eventually("the first message was given to the handler again", || async {
        (bench.calls("m1").await == 2).then_some(())
    })
    .await;
    bench.send("a", "five").await;
    bench.until_notes("a", &["one", "sick", "three", "four", "five"]).await;
    assert_eq!((bench.calls("m2").await, bench.calls("m3").await), (1, 1));
    assert_eq!((bench.letters().await, bench.parked().await), (replayed.to_vec(), Vec::new()));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fails_again_waits_with_what_is_behind_it() {
    let bench = sick().await;
    let (stop, task) = bench.start_consumer();
    let waiting = [letter("a", "sick", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")];
    bench.until_letters(&waiting).await;
    bench.sql(REPLAY).await;
    let tried = || async {
        let tries: Vec<(i32, Option<String>)> =
            sqlx::query_as("SELECT attempts, last_error FROM dead_letters ORDER BY id")
                .fetch_all(&mut *bench.db.acquire().await.unwrap())
                .await
                .unwrap();
        (tries[0].0 == 1).then_some(tries)
    };
    let tries = eventually("it is tried", tried).await;
    assert!(tries[0].1.as_ref().unwrap().contains("it says so itself"), "{tries:?}");
    assert_eq!(tries[1], (0, None));
    assert_eq!(bench.letters().await, waiting);
    assert_eq!((bench.notes("a").await, bench.parked().await), (vec!["one".to_owned()], vec!["a".to_owned()]));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_replayed_before_a_letter_of_an_earlier_release() {
    let bench = sick().await;
    let (stop, task) = bench.start_consumer();
    let waiting = [letter("a", "sick", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")];
    bench.until_letters(&waiting).await;
    // An earlier release has parked the key behind a letter that it has sent to Kafka, and nowhere else.
    bench.sql("UPDATE inbox_parked SET from_offset = from_offset - 1").await;
    bench.sql(MEDICINE).await;
    bench.sql(REPLAY).await;
    eventually("it is refused", || async {
        let why: Option<String> = sqlx::query_scalar("SELECT last_error FROM dead_letters ORDER BY id LIMIT 1")
            .fetch_one(&mut *bench.db.acquire().await.unwrap())
            .await
            .unwrap();
        why.filter(|why| why.contains("in Kafka alone"))
    })
    .await;
    assert_eq!(bench.letters().await, waiting);
    assert_eq!((bench.notes("a").await, bench.parked().await), (vec!["one".to_owned()], vec!["a".to_owned()]));

    bench.sql("UPDATE inbox_parked SET from_offset = from_offset + 1").await;
    bench.sql(REPLAY).await;
    bench.until_notes("a", &["one", "sick", "three"]).await;
    bench.until_parked(&[]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_during_a_replay_is_replayed_behind_it() {
    let bench = sick().await;
    let (stop, task) = bench.start_consumer();
    bench.until_letters(&[letter("a", "sick", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")]).await;
    bench.sql(MEDICINE).await;
    // The replay waits for the table.
    bench.sql("RENAME TABLE notes TO notes_away").await;
    bench.sql(REPLAY).await;
    bench.send("a", "four").await;
    let under_way = [("sick", "POISON"), ("three", "PARKED"), ("four", "PARKED")]
        .map(|(text, kind)| letter("a", text, kind, "REPLAY"));
    bench.until_letters(&under_way).await;
    bench.sql("RENAME TABLE notes_away TO notes").await;
    bench.until_notes("a", &["one", "sick", "three", "four"]).await;
    bench.until_parked(&[]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_discarded_is_skipped_and_lets_its_key_go() {
    let bench = sick().await;
    let (stop, task) = bench.start_consumer();
    bench.until_letters(&[letter("a", "sick", "POISON", "WAITING"), letter("a", "three", "PARKED", "WAITING")]).await;
    bench.sql("UPDATE dead_letters SET state = 'DISCARDED' WHERE kind = 'POISON'").await;
    bench.sql(REPLAY).await;
    bench.until_notes("a", &["one", "three"]).await;
    bench.until_parked(&[]).await;

    bench.send("a", "poison").await;
    bench.until_parked(&["a"]).await;
    bench.sql("UPDATE dead_letters SET state = 'DISCARDED' WHERE state = 'WAITING'").await;
    bench.until_parked(&[]).await;
    bench.send("a", "five").await;
    bench.until_notes("a", &["one", "three", "five"]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_replayed_now_holds_up_no_other_and_no_decision() {
    let bench = Bench::new().await;
    for (key, text) in [("a", "sick"), ("b", "sick"), ("c", "poison")] {
        bench.send(key, text).await;
    }
    let (stop, task) = bench.start_consumer();
    eventually("all are set aside", || async { (bench.letters().await.len() == 3).then_some(()) }).await;
    bench.sql(MEDICINE).await;
    bench
        .sql(
            "CREATE TRIGGER not_yet BEFORE INSERT ON notes FOR EACH ROW IF NEW.message_key = 'a' THEN \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not yet'; END IF",
        )
        .await;
    bench.sql("UPDATE dead_letters SET state = 'DISCARDED' WHERE message_key = 'c'").await;
    bench.sql(REPLAY).await;
    bench.until_notes("b", &["sick"]).await;
    bench.until_parked(&["a"]).await;
    assert!(bench.letters().await.contains(&letter("a", "sick", "POISON", "REPLAY")), "it is tried again");
    eventually("it says what it waits for", || async {
        let why: Option<String> = sqlx::query_scalar("SELECT last_error FROM dead_letters WHERE message_key = 'a'")
            .fetch_one(&mut *bench.db.acquire().await.unwrap())
            .await
            .unwrap();
        why.filter(|why| why.contains("not yet"))
    })
    .await;
    bench.sql("DROP TRIGGER not_yet").await;
    bench.until_notes("a", &["sick"]).await;
    bench.until_parked(&[]).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_right_after_a_decision_is_applied() {
    let bench = Bench::new().await;
    let (stop, task) = bench.start_consumer();
    let mut expected = Vec::new();
    for text in ["one", "two", "three"] {
        bench.send("a", "poison").await;
        bench.until_parked(&["a"]).await;
        bench.sql("UPDATE dead_letters SET state = 'DISCARDED' WHERE state = 'WAITING'").await;
        // Most likely before anybody has seen that the key is to be let go.
        bench.send("a", text).await;
        expected.push(text);
        bench.until_notes("a", &expected).await;
    }
    assert!(bench.letters().await.iter().all(|(_, text, _, state)| text == "poison" && state == "DISCARDED"));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_is_set_aside_in_its_order() {
    /// More than are written at a time.
    const MESSAGES: usize = 250;
    let bench = Bench::new().await;
    bench.send("a", "poison").await;
    let mut expected = vec![letter("a", "poison", "POISON", "WAITING")];
    for n in 0..MESSAGES {
        let (key, text) = (["a", "b"][n % 2], format!("{n}"));
        bench.send(key, &text).await;
        if key == "a" {
            expected.push(letter("a", &text, "PARKED", "WAITING"));
        }
    }
    let (stop, task) = bench.start_consumer();
    bench.until_letters(&expected).await;
    eventually("the other key goes on", || async { (bench.notes("b").await.len() == MESSAGES / 2).then_some(()) })
        .await;
    assert!(bench.notes("a").await.is_empty());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_what_was_discarded_is_skipped_too() {
    let bench = Bench::new().await;
    let (stop, task) = bench.start_consumer();
    let id = bench.send("a", "sick").await;
    bench.until_parked(&["a"]).await;
    bench.sql("UPDATE dead_letters SET state = 'DISCARDED'").await;
    bench.until_parked(&[]).await;
    bench.sql(MEDICINE).await;
    bench.send_again(&id, "a", "sick").await;
    bench.send("a", "sick").await;
    bench.until_notes("a", &["sick"]).await;
    bench.send("a", "four").await;
    bench.until_notes("a", &["sick", "four"]).await;
    assert_eq!(bench.letters().await, [letter("a", "sick", "POISON", "DISCARDED")]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_repeats_what_was_discarded_is_not_replayed() {
    let bench = Bench::new().await;
    let (stop, task) = bench.start_consumer();
    let id = bench.send("a", "sick").await;
    bench.until_parked(&["a"]).await;
    bench.send_again(&id, "a", "sick").await;
    bench.send("a", "three").await;
    let [first, again, three] = [("sick", "POISON"), ("sick", "PARKED"), ("three", "PARKED")];
    bench.until_letters(&[first, again, three].map(|(text, kind)| letter("a", text, kind, "WAITING"))).await;
    bench.sql("UPDATE dead_letters SET state = 'DISCARDED' WHERE kind = 'POISON'").await;
    bench.sql(MEDICINE).await;
    bench.sql(REPLAY).await;
    bench.until_notes("a", &["three"]).await;
    bench.until_parked(&[]).await;
    let ends = [(first, "DISCARDED"), (again, "DISCARDED"), (three, "REPLAYED")];
    assert_eq!(bench.letters().await, ends.map(|((text, kind), state)| letter("a", text, kind, state)));
    stop.cancel();
    task.await.unwrap();
}
