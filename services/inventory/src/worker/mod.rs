//! What runs beside the calls: the consumer that keeps the ledger, and two sweeps that set Redis right. Any number of
//! replicas may run them side by side.

pub mod consumer;
pub mod gauges;
pub mod reconcile;
pub mod sweep;

use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// Longest wait for one round.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for one round, but not for ever. Why it failed is logged here; the next round tries again.
async fn in_time<T>(worker: &'static str, round: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
    match tokio::time::timeout(DEADLINE, round).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::warn!(worker.name = worker, error.cause = format!("{error:#}"), "round failed");
            None
        }
        Err(_) => {
            tracing::warn!(worker.name = worker, round.deadline_s = DEADLINE.as_secs(), "round took too long");
            None
        }
    }
}

/// Sleeps until the next round, or until `stop`. False once there is no next round.
async fn pause(interval: Duration, stop: &CancellationToken) -> bool {
    tokio::time::timeout(interval, stop.cancelled()).await.is_err()
}
