//! Tests of the batcher through its public calls.

use super::{BatchConfig, BatchError, Batcher, GATHER_TIME};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

const CONFIG: BatchConfig =
    BatchConfig { name: "test", max_batch: 4, max_in_flight: 1, max_queued: 8, must_run: false };

/// A batcher that answers each number with its double, one batch for each permit given to the gate, and records each
/// batch.
struct Gated {
    batcher: Batcher<u32, u32>,
    gate: Arc<Semaphore>,
    batches: Arc<Mutex<Vec<Vec<u32>>>>,
}

fn gated(config: BatchConfig) -> Gated {
    let gate = Arc::new(Semaphore::new(0));
    let batches = Arc::new(Mutex::new(Vec::new()));
    let (runner_gate, runner_batches) = (gate.clone(), batches.clone());
    let batcher = Batcher::new(config, move |questions: Vec<u32>| {
        let (gate, batches) = (runner_gate.clone(), runner_batches.clone());
        async move {
            batches.lock().unwrap().push(questions.clone());
            gate.acquire().await.unwrap().forget();
            questions.into_iter().map(|n| n * 2).collect()
        }
    });
    Gated { batcher, gate, batches }
}

impl Gated {
    /// Calls from a task of its own and returns once the call is queued.
    async fn spawn_call(&self, n: u32) -> tokio::task::JoinHandle<Result<u32, BatchError>> {
        let batcher = self.batcher.clone();
        let call = tokio::spawn(async move { batcher.call(n).await });
        settle().await;
        call
    }

    fn batches(&self) -> Vec<Vec<u32>> {
        self.batches.lock().unwrap().clone()
    }
}

/// Lets every runnable task run: time is paused, so it moves only when all are idle.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_queues_while_one_is_in_flight_goes_out_together_and_in_order() {
    let gated = gated(CONFIG);
    let mut calls = Vec::new();
    for n in 0..7 {
        calls.push(gated.spawn_call(n).await);
    }
    assert_eq!(gated.batches(), [vec![0]], "an idle batcher does not wait for company");
    gated.gate.add_permits(3);
    for (n, call) in (0..7).zip(calls) {
        assert_eq!(call.await.unwrap(), Ok(n * 2));
    }
    assert_eq!(gated.batches(), [vec![0], vec![1, 2, 3, 4], vec![5, 6]]);
}

#[tokio::test(start_paused = true)]
async fn several_batches_run_at_a_time_but_not_more_than_allowed() {
    let gated = gated(BatchConfig { max_in_flight: 2, ..CONFIG });
    for n in 0..6 {
        gated.spawn_call(n).await;
        tokio::time::sleep(GATHER_TIME).await;
    }
    assert_eq!(gated.batches(), [vec![0], vec![1]]);
    gated.gate.add_permits(1);
    settle().await;
    assert_eq!(gated.batches(), [vec![0], vec![1], vec![2, 3, 4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_ends_soon_gets_no_other_beside_it_and_a_slow_one_does() {
    let gated = gated(BatchConfig { max_in_flight: 2, ..CONFIG });
    let started = Instant::now();
    for n in 0..3 {
        gated.spawn_call(n).await;
    }
    assert_eq!(gated.batches(), [vec![0]], "it may end soon");
    gated.gate.add_permits(1);
    settle().await;
    assert_eq!(gated.batches(), [vec![0], vec![1, 2]], "it has ended, after {:?}", started.elapsed());
    gated.spawn_call(3).await;
    assert_eq!(gated.batches().len(), 2);
    tokio::time::sleep(GATHER_TIME).await;
    assert_eq!(gated.batches(), [vec![0], vec![1, 2], vec![3]], "a slow one holds up nobody");
}

#[tokio::test(start_paused = true)]
async fn a_slow_batch_holds_up_the_next_one_and_none_after_it() {
    let batcher = Batcher::new(BatchConfig { max_in_flight: 2, ..CONFIG }, |questions: Vec<u32>| async move {
        if questions == [0] {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        questions
    });
    let slow = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.call(0).await }
    });
    settle().await;
    assert_eq!(batcher.call(1).await, Ok(1));
    let started = Instant::now();
    for n in 2..10 {
        assert_eq!(batcher.call(n).await, Ok(n));
    }
    assert!(started.elapsed() < GATHER_TIME, "{:?}", started.elapsed());
    assert_eq!(slow.await.unwrap(), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_waits_for_none() {
    let gated = gated(BatchConfig { max_in_flight: 2, ..CONFIG });
    gated.spawn_call(0).await;
    let calls: Vec<_> = (1..=4)
        .map(|n| {
            let batcher = gated.batcher.clone();
            async move { batcher.call(n).await }
        })
        .collect();
    let full = tokio::spawn(futures_util::future::join_all(calls));
    settle().await;
    assert_eq!(gated.batches(), [vec![0], vec![1, 2, 3, 4]]);
    full.abort();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let gated = gated(BatchConfig { max_queued: 2, ..CONFIG });
    let mut calls = Vec::new();
    for n in 0..3 {
        calls.push(gated.spawn_call(n).await);
    }
    assert_eq!(gated.batcher.call(9).await, Err(BatchError::Overloaded));
    gated.gate.add_permits(3);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(gated.batcher.call(9).await, Ok(18));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_takes_nobody_along() {
    let gated = gated(CONFIG);
    let first = gated.spawn_call(1).await;
    let leaver = gated.spawn_call(2).await;
    let stayer = gated.spawn_call(3).await;
    first.abort();
    leaver.abort();
    settle().await;
    gated.gate.add_permits(2);
    assert_eq!(stayer.await.unwrap(), Ok(6));
    assert_eq!(gated.batches(), [vec![1], vec![3]], "what nobody waits for is not done");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_asked_in_its_turn_though_nobody_waits_for_it() {
    let gated = gated(BatchConfig { max_queued: 2, ..CONFIG });
    let first = gated.spawn_call(1).await;
    assert_eq!(gated.batcher.tell(2), Ok(()));
    let last = gated.spawn_call(3).await;
    assert_eq!(gated.batcher.tell(4), Err(BatchError::Overloaded));
    gated.gate.add_permits(2);
    assert_eq!((first.await.unwrap(), last.await.unwrap()), (Ok(2), Ok(6)));
    assert_eq!(gated.batches(), [vec![1], vec![2, 3]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_filled_with_calls_that_somebody_waits_for() {
    let gated = gated(BatchConfig { max_queued: 16, ..CONFIG });
    let first = gated.spawn_call(0).await;
    let mut calls = Vec::new();
    for n in 1..=10 {
        calls.push(gated.spawn_call(n).await);
    }
    let last = calls.pop().unwrap();
    calls.iter().for_each(|call| call.abort());
    settle().await;
    gated.gate.add_permits(2);
    assert_eq!((first.await.unwrap(), last.await.unwrap()), (Ok(0), Ok(20)));
    assert_eq!(gated.batches(), [vec![0], vec![10]]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_calls_that_are_not_wanted_keeps_no_slot() {
    let gated = gated(CONFIG);
    let first = gated.spawn_call(1).await;
    gated.spawn_call(2).await.abort();
    settle().await;
    gated.gate.add_permits(2);
    assert_eq!(first.await.unwrap(), Ok(2));
    settle().await;
    assert_eq!(gated.batcher.call(3).await, Ok(6), "the dropped one has left its slot free");
    assert_eq!(gated.batches(), [vec![1], vec![3]]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_queued_at_its_deadline_is_not_made_and_one_under_way_is_answered() {
    let gated = gated(CONFIG);
    let deadline = Some(Instant::now() + Duration::from_millis(100));
    let call = |n| {
        let batcher = gated.batcher.clone();
        tokio::spawn(async move { batcher.call_by(n, deadline).await })
    };
    let under_way = call(1);
    settle().await;
    let queued = call(2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    gated.gate.add_permits(2);
    assert_eq!(under_way.await.unwrap(), Ok(2));
    assert_eq!(queued.await.unwrap(), Err(BatchError::TooLate));
    assert_eq!(gated.batches(), [vec![1]]);
}

#[tokio::test(start_paused = true)]
async fn what_must_run_is_done_whoever_waits_for_it() {
    let gated = gated(BatchConfig { must_run: true, ..CONFIG });
    let first = gated.spawn_call(1).await;
    let leaver = gated.spawn_call(2).await;
    leaver.abort();
    settle().await;
    gated.gate.add_permits(2);
    assert_eq!(first.await.unwrap(), Ok(2));
    settle().await;
    assert_eq!(gated.batches(), [vec![1], vec![2]]);
}

#[tokio::test]
async fn a_panic_fails_its_own_batch_only() {
    let batcher = Batcher::new(CONFIG, |questions: Vec<u32>| async move {
        assert!(!questions.contains(&13), "unlucky");
        questions
    });
    assert_eq!(batcher.call(13).await, Err(BatchError::Closed));
    assert_eq!(batcher.call(14).await, Ok(14));
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_its_place_for_the_next_batch() {
    let batcher = Batcher::new(BatchConfig { max_in_flight: 2, ..CONFIG }, |questions: Vec<u32>| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!questions.contains(&13), "unlucky");
        questions
    });
    for _ in 0..3 {
        assert_eq!(batcher.call(13).await, Err(BatchError::Closed));
    }
    assert_eq!(tokio::join!(batcher.call(14), batcher.call(15)), (Ok(14), Ok(15)));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_answered_though_the_last_clone_is_gone() {
    let Gated { batcher, gate, batches } = gated(CONFIG);
    let first = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.call(1).await }
    });
    settle().await;
    assert_eq!(batcher.tell(2), Ok(()));
    drop(batcher);
    gate.add_permits(2);
    assert_eq!(first.await.unwrap(), Ok(2));
    settle().await;
    assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2]]);
}

#[tokio::test]
async fn too_few_answers_fail_the_batch_rather_than_mix_it_up() {
    let batcher = Batcher::new(CONFIG, |_: Vec<u32>| async { Vec::<u32>::new() });
    assert_eq!(batcher.call(1).await, Err(BatchError::Closed));
}
