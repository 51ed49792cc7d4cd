//! The expiry listener: Redis publishes that a timer has expired, and the event advances at once.
//!
//! It is an optimization: nothing depends on it. It arms all timers after each connect, so a Redis that lost them gets
//! them back.

use crate::usecase::{AdvanceEvents, ArmTimers, BATCH_SIZE};
use stampede_lua::{Redis, timer::Expirations};
use stampede_vocab::{EventId, backoff};
use std::{future::Future, time::Duration};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time between two pings of the connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for one batch. A transaction under way goes on; the next poll of the sweep finds whether it committed.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The worker. It has a loop of its own because it goes by no rounds: it is a subscription, which lasts as long as its
/// connection does and is then made anew, with the back-off of every other worker. Whatever it waits for apart from an
/// expiry has a time-out.
pub struct ExpiryListener {
    /// Opens and closes what expires.
    pub advance: AdvanceEvents,
    /// Arms all timers when a connection is made.
    pub timers: ArmTimers,
    /// Where the timers are.
    pub redis: Redis,
}

impl ExpiryListener {
    /// Runs until `stop`. Reconnects for ever, with back-off.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match Expirations::subscribe(&self.redis).await {
                Ok(expirations) => {
                    failures = 0;
                    // After the subscription, so that the expiry of a timer in between is received.
                    self.arm_all().await;
                    self.listen(expirations, &stop).await;
                }
                Err(error) => {
                    tracing::warn!(error.cause = %error, "cannot listen for timers, the sweep goes on alone");
                }
            }
            // Also after a connection that was lost, so that a Redis that accepts and closes is not called in a loop.
            stop.run_until_cancelled(sleep(backoff(failures))).await;
            failures += 1;
        }
        Ok(())
    }

    async fn arm_all(&self) {
        match in_time(self.timers.arm_all()).await {
            Ok(armed) => tracing::info!(event.armed = armed, "listening for the timers of events"),
            Err(error) => tracing::warn!(error.cause = %error, "timers not armed, left to the sweep"),
        }
    }

    /// Advances the events of expired timers until the connection is lost or the process stops.
    async fn listen(&self, mut expirations: Expirations, stop: &CancellationToken) {
        let mut check = interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                batch = expirations.next(BATCH_SIZE as usize) => match batch {
                    Some(batch) => self.advance(batch.into_iter().map(|(event_id, _)| event_id).collect()).await,
                    None => return tracing::warn!("the connection for timers is lost"),
                },
                // Without traffic a half-open connection cannot be distinguished from one on which nothing expires.
                _ = check.tick() => if let Err(error) = expirations.check().await {
                    return tracing::warn!(error.cause = %error, "the connection for timers does not answer");
                },
            }
        }
    }

    async fn advance(&self, expired: Vec<EventId>) {
        if let Err(error) = in_time(self.advance.run(expired)).await {
            tracing::warn!(error.cause = %error, "events of expired timers not advanced, left to the sweep");
        }
    }
}

/// Waits for `step`, but not for ever.
async fn in_time<T, E: Into<anyhow::Error>>(step: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    match timeout(BATCH_TIMEOUT, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("not done within {} s", BATCH_TIMEOUT.as_secs()),
    }
}
