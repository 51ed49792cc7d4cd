//! A relay that has nothing to send leaves the disk alone.

use crate::bench::Bench;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Several renewals of a relay that is alone and idle, which has one in two seconds.
const A_WHILE: Duration = Duration::from_secs(5);
const RENEWALS: &str = "SELECT COUNT(*) FROM renewals";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_work_commits_once_in_two_seconds() {
    let bench = Bench::new().await;
    bench.run("CREATE TABLE renewals (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY) ENGINE = InnoDB").await;
    // Each renewal writes the row of its relay, whatever else it writes.
    bench
        .run(
            "CREATE TRIGGER note_renewal AFTER UPDATE ON outbox_relays FOR EACH ROW \
             INSERT INTO renewals (id) VALUES (NULL)",
        )
        .await;
    let relay = bench.start_relay();
    bench.write(1, 1).await;
    bench.settled().await;
    let (started, before) = (Instant::now(), bench.count(RENEWALS).await);
    sleep(A_WHILE).await;
    let renewals = bench.count(RENEWALS).await - before;
    // The sleep may have been longer than it was to be.
    let took = started.elapsed();
    let most = i64::try_from(took.as_secs()).unwrap() / 2 + 2;
    assert!((1..=most).contains(&renewals), "{renewals} in {took:?}");
    relay.stop().await;
}
