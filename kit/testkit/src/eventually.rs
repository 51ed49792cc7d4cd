//! Waiting for a condition, never for a time.

use std::{future::Future, time::Duration};
use tokio::time::{Instant, sleep};

/// Longest wait. A machine under load is slow, and a condition that holds is seen at once anyway.
const DEADLINE: Duration = Duration::from_secs(30);

/// Retries `poll` until it yields something. Panics with `what` after half a minute.
pub async fn eventually<T, F, Fut>(what: &str, poll: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let value = within_deadline(poll).await;
    value.unwrap_or_else(|| panic!("still not so after {DEADLINE:?}: {what}"))
}

/// Retries `poll` until it yields something. Returns `None` after half a minute.
pub async fn within_deadline<T, F, Fut>(mut poll: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        let value = poll().await;
        if value.is_some() || started.elapsed() >= DEADLINE {
            return value;
        }
        sleep(Duration::from_millis(20)).await;
    }
}
