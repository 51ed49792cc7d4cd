//! The expiry listener: advances events as soon as Redis publishes that their timers have expired.
//!
//! It is an optimization: nothing depends on it. It arms the timers of upcoming transitions after each connect, so that
//! a Redis that lost them gets them back, and then periodically while it listens.

use crate::usecase::{AdvanceEvents, ArmTimers};
use stampede_lua::{Redis, timer::Expirations};
use stampede_vocab::backoff;
use std::{future::Future, time::Duration};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Time between two rounds of arming timers: a small part of the time that they are armed ahead.
const ARM_INTERVAL: Duration = Duration::from_secs(20);
/// Age from which on a connection counts as stable and resets the back-off: one that is cut again and again must not
/// have the timers armed as often.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Time between two checks of the connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Most expirations in one batch.
const MAX_EXPIRATIONS: usize = 1_000;
/// Pause after a batch. Timers of one instant expire one by one, and each batch locks and walks all that is due.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Time-out of one batch. A transaction in flight goes on; the next poll of the sweep finds whether it committed.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The worker. It has its own loop because it has no rounds: it is a subscription, which lasts as long as its
/// connection and is then renewed with back-off. All its waits but that for an expiry have time-outs.
pub struct ExpiryListener {
    pub advance: AdvanceEvents,
    pub timers: ArmTimers,
    /// The Redis of the timers.
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
                    if connected_at.elapsed() >= STABLE_AFTER {
                        failures = 0;
                    }
                }
                Err(error) => {
                    tracing::warn!(error.cause = %error, "cannot listen for timers, the sweep goes on alone");
                }
            }
            // Also after a lost connection, so that a Redis that accepts and closes connections is not called in a
            // tight loop.
            stop.run_until_cancelled(sleep(backoff(failures))).await;
            failures += 1;
        }
        Ok(())
    }

    /// Arms the timers of upcoming transitions, now and periodically. It starts after the subscription, so that no
    /// expiry in between is missed. Never returns.
    async fn keep_armed(&self) {
        let (mut armed_until, mut failures) = (None, 0);
        loop {
            match with_timeout(self.timers.arm_upcoming(armed_until)).await {
                Ok((armed, until)) => {
                    if armed_until.is_none() {
                        tracing::info!(event.count = armed, "listening for the timers of events");
                    }
                    (armed_until, failures) = (Some(until), 0);
                    sleep(ARM_INTERVAL).await;
                }
                Err(error) => {
                    tracing::warn!(error.cause = %error, "timers not armed, left to the sweep");
                    sleep(backoff(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Advances due events when timers expire, until the connection is lost or the process stops.
    async fn listen(&self, mut expirations: Expirations, stop: &CancellationToken) {
        let mut check = interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                batch = expirations.next(MAX_EXPIRATIONS) => match batch {
                    Some(batch) => {
                        self.advance(batch.len()).await;
                        sleep(BATCH_PAUSE).await;
                    }
                    None => return tracing::warn!("the connection for timers is lost"),
                },
                // Without traffic a half-open connection, or one to a replica, looks like one on which nothing expires.
                _ = check.tick() => if let Err(error) = expirations.check().await {
                    return tracing::warn!(error.cause = %error, "the connection for timers is given up");
                },
            }
        }
    }

    async fn advance(&self, expired: usize) {
        if let Err(error) = with_timeout(self.advance.run(expired)).await {
            tracing::warn!(error.cause = %error, "events of expired timers not advanced, left to the sweep");
        }
    }
}

/// Runs `step` with a time-out.
async fn with_timeout<T, E: Into<anyhow::Error>>(step: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    match timeout(BATCH_TIMEOUT, step).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("not done within {} s", BATCH_TIMEOUT.as_secs()),
    }
}
