//! The expiry listener: Redis tells that a timer has expired, and the event is turned at once.
//!
//! Nothing depends on it. It arms every timer anew whenever it has connected, so timers survive a Redis that lost them.

use crate::{
    usecase::{BATCH, Events},
    worker::in_time,
};
use stampede_chassis::backoff;
use stampede_lua::{Redis, timer::Expirations};
use stampede_vocab::EventId;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the connection is asked whether it still lives.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop`, and connects again for as long as it takes.
pub async fn run(events: Events, redis: Redis, stop: CancellationToken) -> anyhow::Result<()> {
    let mut failures = 0;
    while !stop.is_cancelled() {
        match Expirations::subscribe(&redis).await {
            Ok(expirations) => {
                failures = 0;
                arm_all(&events).await;
                listen(&events, expirations, &stop).await;
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

async fn arm_all(events: &Events) {
    match in_time(events.arm_all()).await {
        Ok(armed) => tracing::info!(events.armed = armed, "listening for the timers of events"),
        Err(error) => tracing::warn!(error.cause = %error, "timers not armed, the sweep will do"),
    }
}

/// Turns what expires until the connection is lost or the process stops.
async fn listen(events: &Events, mut expirations: Expirations, stop: &CancellationToken) {
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            batch = expirations.next(BATCH as usize) => match batch {
                Some(batch) => turn(events, batch.into_iter().map(|(event_id, _)| event_id).collect()).await,
                None => return tracing::warn!("the connection for timers is lost"),
            },
            _ = check.tick() => if let Err(error) = expirations.check().await {
                return tracing::warn!(error.cause = %error, "the connection for timers does not answer");
            },
        }
    }
}

async fn turn(events: &Events, expired: Vec<EventId>) {
    if let Err(error) = in_time(events.turn(expired)).await {
        tracing::warn!(error.cause = %error, "expired timers not acted on, the sweep will do");
    }
}
