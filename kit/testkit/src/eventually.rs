//! Waiting for a condition, never for a time.

use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep};

/// Longest wait. A machine under load is slow, and a condition that holds is seen at once anyway.
const DEADLINE: Duration = Duration::from_secs(30);

/// Retries `poll` until it yields something. Panics with `what` after half a minute.
pub async fn eventually<T, F, Fut>(what: &str, mut poll: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "still not so after {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
