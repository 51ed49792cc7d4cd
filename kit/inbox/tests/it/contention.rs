//! Two consumers that have the same partition in hand: one that stood still has lost it, and does not know.

use crate::bench::Bench;
use stampede_testkit::{FreezeAt, Proxy, Service, Writes, eventually};

/// Waits until somebody waits to write a note.
async fn somebody_waits(bench: &Bench) {
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                   WHERE db = DATABASE() AND info LIKE 'INSERT INTO notes%'";
    eventually("a consumer waits for the other one", || async {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut *bench.db.acquire().await.ok()?).await.ok()?;
        (count > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_consumers_with_one_message_in_hand_one_waits_and_finds_a_repeat() {
    let bench = Bench::new().await;
    let link = Proxy::to_url(&bench.world.service_database_url(Service::Order)).await.unwrap();
    let (stop_first, first) = bench.start_patient(link.url()).await;
    bench.send("a", "one").await;
    bench.until_notes("a", &["one"]).await;
    // It has applied the message, and its COMMIT goes nowhere.
    link.freeze(Writes::With(b"COMMIT".to_vec()), FreezeAt::Before(1));
    let id = bench.send("a", "two").await;
    link.frozen().await;

    // The other one is given the partition, and reads the message again.
    let (stop_second, second) = bench.start_consumer();
    somebody_waits(&bench).await;
    assert_eq!(bench.notes("a").await, ["one"]);
    link.thaw();
    eventually("both have applied it", || async { bench.calls_so_far(&id).await.filter(|calls| *calls >= 2) }).await;

    bench.send("a", "three").await;
    bench.until_notes("a", &["one", "two", "three"]).await;
    assert!(bench.letters().await.is_empty());
    // The one that was late has set no place back.
    eventually("all is committed", || async { (bench.committed().await == 3).then_some(()) }).await;
    for (stop, task) in [(stop_first, first), (stop_second, second)] {
        stop.cancel();
        task.await.unwrap();
    }
}
