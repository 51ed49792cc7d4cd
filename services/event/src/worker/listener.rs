//! The expiry listener: Redis publishes that a timer has expired, and the event advances at once.
//!
//! It is an optimization: nothing depends on it. It arms the timers of what is near after each connect, so a Redis that
//! lost them gets them back, and then of what comes near, beside what expires.

use crate::usecase::{AdvanceEvents, ArmTimers};
use stampede_lua::{Redis, timer::Expirations};
use stampede_vocab::backoff;
use std::{future::Future, time::Duration};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time between two looks for what has come near, which is a small part of the time that timers are armed ahead.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// How long a connection must last for the next one to be made soon after it: one that is cut again and again must not
/// have the timers armed as often.
const STEADY: Duration = Duration::from_secs(5);
/// Time between two pings of the connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Most expirations that are looked at together.
const EXPIRED_AT_A_TIME: usize = 1_000;
/// Longest wait for one batch. A transaction under way goes on; the next poll of the sweep finds whether it committed.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The worker. It has a loop of its own because it goes by no rounds: it is a subscription, which lasts as long as its
/// connection does and is then made anew, with the back-off of every other worker. Whatever it waits for apart from an
/// expiry has a time-out.
pub struct ExpiryListener {
    /// Opens and closes what expires.
    pub advance: AdvanceEvents,
    /// Arms the timers of what is near.
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
                    let connected_at = Instant::now();
                    tokio::select! {
                        () = self.listen(expirations, &stop) => {}
                        () = self.keep_armed() => {}
                    }
                    if connected_at.elapsed() >= STEADY {
                        failures = 0;
                    }
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

    /// Arms the timers of what is near, and later of what has come near. Begins after the subscription, so that the
    /// expiry of a timer in between is received. Never returns.
    async fn keep_armed(&self) {
        let (mut armed_until, mut failures) = (None, 0);
        loop {
            match in_time(self.timers.arm_near(armed_until)).await {
                Ok((armed, until)) => {
                    if armed_until.is_none() {
                        tracing::info!(event.armed = armed, "listening for the timers of events");
                    }
                    (armed_until, failures) = (Some(until), 0);
                    sleep(LOOK_INTERVAL).await;
                }
                Err(error) => {
                    tracing::warn!(error.cause = %error, "timers not armed, left to the sweep");
                    sleep(backoff(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Advances what is due when timers have expired, until the connection is lost or the process stops.
    async fn listen(&self, mut expirations: Expirations, stop: &CancellationToken) {
        let mut check = interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                batch = expirations.next(EXPIRED_AT_A_TIME) => match batch {
                    Some(batch) => self.advance(batch.len()).await,
                    None => return tracing::warn!("the connection for timers is lost"),
                },
                // Without traffic a half-open connection cannot be distinguished from one on which nothing expires.
                _ = check.tick() => if let Err(error) = expirations.check().await {
                    return tracing::warn!(error.cause = %error, "the connection for timers does not answer");
                },
            }
        }
    }

    async fn advance(&self, expired: usize) {
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
