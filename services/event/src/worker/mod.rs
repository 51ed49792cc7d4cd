//! What makes events open and close by themselves: the listener is prompt, the sweep is sure. Both call the same use
//! case.

mod listener;
mod sweep;

pub use listener::ExpiryListener;
pub use sweep::DueSweep;

use std::{future::Future, time::Duration};

/// Longest wait for one batch. A transaction under way goes on; whether it was done is seen at the next look.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for `step`, but not for ever.
async fn in_time<T, E: Into<anyhow::Error>>(step: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    match tokio::time::timeout(BATCH_TIMEOUT, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("not done within {} s", BATCH_TIMEOUT.as_secs()),
    }
}
