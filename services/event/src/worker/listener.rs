//! The expiry listener: Redis tells that a timer has expired, and the event advances at once.
//!
//! Nothing depends on it. It arms every timer anew whenever it has connected, so timers survive a Redis that lost them.

use super::in_time;
use crate::usecase::{AdvanceEvents, ArmTimers, BATCH_SIZE};
use stampede_lua::{Redis, timer::Expirations};
use stampede_vocab::{EventId, backoff};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the connection is asked whether it still lives.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The worker.
pub struct ExpiryListener {
    /// Opens and closes what expires.
    pub advance: AdvanceEvents,
    /// Arms all timers when a connection is made.
    pub timers: ArmTimers,
    /// Where the timers are.
    pub redis: Redis,
}

impl ExpiryListener {
    /// Runs until `stop`, and connects again for as long as it takes.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match Expirations::subscribe(&self.redis).await {
                Ok(expirations) => {
                    failures = 0;
                    self.arm_all().await;
                    self.listen(expirations, &stop).await;
                }
                Err(error) => {
                    tracing::warn!(error.cause = %error, "cannot listen for timers, the sweep goes on alone");
                }
            }
            let _ = tokio::time::timeout(backoff(failures), stop.cancelled()).await;
            failures += 1;
        }
        Ok(())
    }

    async fn arm_all(&self) {
        match in_time(self.timers.arm_all()).await {
            Ok(armed) => tracing::info!(event.armed = armed, "listening for the timers of events"),
            Err(error) => tracing::warn!(error.cause = %error, "timers not armed, the sweep will do"),
        }
    }

    /// Advances what expires until the connection is lost or the process stops.
    async fn listen(&self, mut expirations: Expirations, stop: &CancellationToken) {
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                batch = expirations.next(BATCH_SIZE as usize) => match batch {
                    Some(batch) => self.advance(batch.into_iter().map(|(event_id, _)| event_id).collect()).await,
                    None => return tracing::warn!("the connection for timers is lost"),
                },
                _ = check.tick() => if let Err(error) = expirations.check().await {
                    return tracing::warn!(error.cause = %error, "the connection for timers does not answer");
                },
            }
        }
    }

    async fn advance(&self, expired: Vec<EventId>) {
        if let Err(error) = in_time(self.advance.run(expired)).await {
            tracing::warn!(error.cause = %error, "expired timers not acted on, the sweep will do");
        }
    }
}
