//! The workers that open and close events: the listener is prompt, the sweep is reliable. Both call the same use case.

mod listener;
mod sweep;

pub use listener::ExpiryListener;
pub use sweep::DueSweep;

use std::{future::Future, time::Duration};

/// Longest wait for one batch. Its transaction goes on; the next round reads whether it was committed.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `step` within the time-out of a batch.
async fn in_time<T, E: Into<anyhow::Error>>(step: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    match tokio::time::timeout(BATCH_TIMEOUT, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("not done within {} s", BATCH_TIMEOUT.as_secs()),
    }
}
