//! Tests of batchers by key. Time is paused, so it moves only when all tasks wait.

use super::KeyedBatchers;
use crate::{BatchConfig, BatchError, Batcher, GATHER_TIME};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};

const CONFIG: BatchConfig =
    BatchConfig { name: "test", max_batch: 4, max_in_flight: 2, max_queued: 8, must_run: false };
const MAX_KEYS: usize = 2;
/// Number of the batcher that keys share.
const SHARED: usize = 0;

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
enum Question {
    Quick,
    /// Its batch waits for a permit of the gate.
    Slow,
}

/// Batchers that answer each question with their own number, in the order in which they were made.
struct Keyed {
    batchers: KeyedBatchers<&'static str, Question, usize>,
    gate: Arc<Semaphore>,
}

fn keyed() -> Keyed {
    let (made, gate) = (AtomicUsize::new(SHARED), Arc::new(Semaphore::new(0)));
    let runner_gate = gate.clone();
    let batchers = KeyedBatchers::bounded(MAX_KEYS, move || {
        let (number, gate) = (made.fetch_add(1, Ordering::Relaxed), runner_gate.clone());
        Batcher::new(CONFIG, move |questions: Vec<Question>| answer(number, gate.clone(), questions))
    });
    Keyed { batchers, gate }
}

async fn answer(number: usize, gate: Arc<Semaphore>, questions: Vec<Question>) -> Vec<usize> {
    if questions.contains(&Question::Slow) {
        gate.acquire().await.unwrap().forget();
    }
    vec![number; questions.len()]
}

impl Keyed {
    async fn ask(&self, key: &'static str) -> Result<usize, BatchError> {
        self.batchers.of(key).call(Question::Quick).await
    }

    /// Asks a slow question from a task of its own, and returns once no other batch waits for that one.
    async fn ask_slow(&self, key: &'static str) -> JoinHandle<Result<usize, BatchError>> {
        let batcher = self.batchers.of(key);
        let call = tokio::spawn(async move { batcher.call(Question::Slow).await });
        sleep(GATHER_TIME).await;
        call
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_batcher_of_its_own() {
    let keyed = keyed();
    let asked = [keyed.ask("a").await, keyed.ask("b").await, keyed.ask("a").await];
    assert_eq!(asked, [Ok(1), Ok(2), Ok(1)]);
    let clone = keyed.batchers.clone();
    assert_eq!(clone.of("b").call(Question::Quick).await, Ok(2), "a clone has the same");
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_batches_hang_does_not_delay_another() {
    let keyed = keyed();
    let hanging = [keyed.ask_slow("a").await, keyed.ask_slow("a").await];
    let same_key = timeout(Duration::from_secs(60), keyed.ask("a")).await;
    assert!(same_key.is_err(), "both places of the key are taken: {same_key:?}");
    assert_eq!(timeout(Duration::from_millis(1), keyed.ask("b")).await, Ok(Ok(2)));
    keyed.gate.add_permits(hanging.len());
    for call in hanging {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
    assert_eq!(keyed.ask("a").await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn batchers_that_nobody_uses_are_dropped_once_there_are_too_many() {
    let keyed = keyed();
    let asked = [keyed.ask("a").await, keyed.ask("b").await, keyed.ask("c").await, keyed.ask("a").await];
    assert_eq!(asked, [Ok(1), Ok(2), Ok(3), Ok(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_batcher_with_a_call_in_flight_is_kept_though_its_caller_has_gone() {
    let keyed = keyed();
    let call = keyed.ask_slow("a").await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let asked = [keyed.ask("b").await, keyed.ask("c").await, keyed.ask("a").await];
    assert_eq!(asked, [Ok(2), Ok(3), Ok(1)]);
    keyed.gate.add_permits(1);
    sleep(GATHER_TIME).await;
    assert_eq!([keyed.ask("d").await, keyed.ask("a").await], [Ok(4), Ok(5)], "its call has ended");
}

#[tokio::test(start_paused = true)]
async fn a_batcher_with_a_call_that_was_told_is_kept() {
    let keyed = keyed();
    let hanging = [keyed.ask_slow("a").await, keyed.ask_slow("a").await];
    assert_eq!(keyed.batchers.of("a").tell(Question::Slow), Ok(()));
    keyed.gate.add_permits(hanging.len());
    sleep(GATHER_TIME).await;
    // What was told is in flight now, and nobody waits for it.
    let asked = [keyed.ask("b").await, keyed.ask("c").await, keyed.ask("a").await];
    assert_eq!(asked, [Ok(2), Ok(3), Ok(1)]);
}

#[tokio::test(start_paused = true)]
async fn keys_share_a_batcher_while_all_others_are_in_use() {
    let keyed = keyed();
    let used = ["a", "b"].map(|key| keyed.batchers.of(key));
    assert_eq!([keyed.ask("c").await, keyed.ask("d").await], [Ok(SHARED), Ok(SHARED)]);
    assert_eq!([keyed.ask("a").await, keyed.ask("b").await], [Ok(1), Ok(2)], "they keep theirs");
    drop(used);
    assert_eq!(keyed.ask("c").await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn no_key_shares_a_batcher_where_their_number_is_not_bounded() {
    let made = AtomicUsize::new(0);
    let batchers = KeyedBatchers::new(MAX_KEYS, move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Batcher::new(CONFIG, move |questions: Vec<Question>| async move { vec![number; questions.len()] })
    });
    let used = ["a", "b", "c"].map(|key| batchers.of(key));
    for (number, batcher) in used.iter().enumerate() {
        assert_eq!(batcher.call(Question::Quick).await, Ok(number));
    }
    assert_eq!(batchers.of("c").call(Question::Quick).await, Ok(2), "all are in use and kept");
    drop(used);
    assert_eq!(batchers.of("d").call(Question::Quick).await, Ok(3));
    assert_eq!(batchers.of("a").call(Question::Quick).await, Ok(4), "nobody used its first one any more");
}
