//! What makes events turn by themselves: the listener is prompt, the sweep is sure. Both call the same usecase.

pub mod listener;
pub mod sweep;

use std::{future::Future, time::Duration};

/// Longest wait for one batch. A transaction under way goes on; whether it was done is seen at the next look.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for `step`, but not for ever.
async fn in_time<T, E: Into<anyhow::Error>>(step: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    match tokio::time::timeout(DEADLINE, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("not done within {} s", DEADLINE.as_secs()),
    }
}
