//! Measures each second how far the clocks of servers are from that of the machine, and corrects the time of the
//! process to one of them.
//!
//! Does not affect readiness. While a clock does not answer, the last offset stays.

use crate::{Stage, Workers, wait_for};
use opentelemetry::{KeyValue, global, metrics::Gauge};
use stampede_vocab::{
    Timestamp,
    clock::{self, Offset},
};
use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Time between two measurements.
const PERIOD: Duration = Duration::from_secs(1);
/// Timeout of one read. Servers have shorter timeouts of their own, which should end a hanging read first.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most reads of one measurement; the one with the shortest round trip counts.
const MAX_READS: usize = 3;
/// A round trip that is short enough to stop reading.
const SHORT_ROUND_TRIP: Duration = Duration::from_millis(1);
/// Largest offset without a warning.
const TOLERANCE: Duration = Duration::from_millis(20);
/// Time between two warnings.
const REMINDER: Duration = Duration::from_secs(60);

/// A clock to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedClock {
    /// Name of its server, a label of the metric.
    pub of: &'static str,
    /// Whether [`Timestamp::now`] is corrected to it.
    pub leads: bool,
}

/// Measures the offset of the machine's clock from this clock now and each second, by `read`. Exports it as
/// `stampede_clock_offset_seconds`, and warns if it is too large.
///
/// Fails if `read` does not succeed within `wait`.
pub async fn follow_clock<R, Fut, E>(
    workers: &Workers,
    clock: SharedClock,
    wait: Duration,
    read: R,
) -> anyhow::Result<()>
where
    R: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Timestamp, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut offsets = Offsets::of(clock);
    let first = wait_for(&format!("the clock of the {}", clock.of), wait, || measure(&read)).await?;
    offsets.take(first);
    // In the last stage, since the relay uses the corrected time too.
    workers.spawn(Stage::Relay, "clock", move |stop| async move {
        offsets.follow(read, stop).await;
        Ok(())
    });
    Ok(())
}

/// Reads the clock until a round trip is short, and returns the best offset. Fails if there is none.
async fn measure<R, Fut, E>(read: &R) -> Result<Offset, String>
where
    R: Fn() -> Fut,
    Fut: Future<Output = Result<Timestamp, E>>,
    E: Display,
{
    let mut best: Option<Offset> = None;
    for _ in 0..MAX_READS {
        // In this order, so that the round trip is not measured too short.
        let (started, sent_at) = (Instant::now(), clock::machine());
        let answer = match timeout(TIMEOUT, read()).await {
            Ok(Ok(there)) => Offset::new(sent_at, started.elapsed(), there),
            // Earlier reads of the measurement count.
            Ok(Err(error)) => return best.ok_or_else(|| error.to_string()),
            Err(_) => return best.ok_or_else(|| format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let narrowest = best.map_or(answer, |best| best.narrower(answer));
        if narrowest.round_trip() <= SHORT_ROUND_TRIP {
            return Ok(narrowest);
        }
        best = Some(narrowest);
    }
    best.ok_or_else(|| "it was not asked".to_owned())
}

/// Applies each measured offset: corrects, exports and warns.
struct Offsets {
    clock: SharedClock,
    seconds: Gauge<f64>,
    /// Whether the last measurement succeeded.
    is_known: bool,
    warned: Option<Instant>,
}

impl Offsets {
    fn of(clock: SharedClock) -> Self {
        let seconds = global::meter("stampede")
            .f64_gauge("stampede_clock_offset_seconds")
            .with_description("How far another clock is ahead of the machine's at least")
            .build();
        Self { clock, seconds, is_known: true, warned: None }
    }

    async fn follow<R, Fut, E>(&mut self, read: R, stop: CancellationToken)
    where
        R: Fn() -> Fut,
        Fut: Future<Output = Result<Timestamp, E>>,
        E: Display,
    {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = async {
                ticks.tick().await;
                measure(&read).await
            };
            match stop.run_until_cancelled(next).await {
                None => return,
                Some(measured) => self.note(measured),
            }
        }
    }

    fn note(&mut self, measured: Result<Offset, String>) {
        match measured {
            Ok(offset) => {
                self.is_known = true;
                self.take(offset);
            }
            Err(cause) => self.note_failure(&cause),
        }
    }

    fn take(&mut self, offset: Offset) {
        if self.clock.leads {
            clock::correct(offset);
        }
        // The least offset, as for the warning: an uncertain measurement must not alarm.
        self.seconds.record(offset.least_micros() as f64 / 1e6, &[KeyValue::new("against", self.clock.of)]);
        if offset.at_least() > TOLERANCE && self.warned.is_none_or(|warned| warned.elapsed() >= REMINDER) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                clock.against = self.clock.of,
                clock.offset_us = offset.least_micros(),
                "the clock of this machine is off: keep all machines on NTP"
            );
        }
    }

    /// Logs the first failure, and the first one after a success.
    fn note_failure(&mut self, cause: &str) {
        if self.is_known {
            tracing::warn!(
                clock.against = self.clock.of,
                error.cause = cause,
                "a clock does not answer; what was measured last stays"
            );
        }
        self.is_known = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };
    use tokio::time::sleep;

    const AHEAD: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn the_answer_that_was_back_soonest_counts() {
        let asked = AtomicUsize::new(0);
        let read = || {
            let slow = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                sleep(Duration::from_millis(if slow { 300 } else { 2 })).await;
                Ok::<_, String>(clock::machine().plus(AHEAD))
            }
        };
        let offset = measure(&read).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), MAX_READS, "none was back at once");
        assert!(offset.round_trip() < Duration::from_millis(300), "{offset:?}");
        let least = offset.at_least();
        assert!(least < AHEAD + SHORT_ROUND_TRIP && AHEAD <= least + offset.round_trip(), "{offset:?}");
    }

    #[tokio::test]
    async fn an_answer_that_is_back_at_once_is_enough() {
        let asked = AtomicUsize::new(0);
        let read = || {
            asked.fetch_add(1, Ordering::Relaxed);
            ready(Ok::<_, String>(clock::machine()))
        };
        // The machine may be busy for a moment at any time, but not at each.
        for _ in 0..10 {
            measure(&read).await.unwrap();
        }
        assert!(asked.load(Ordering::Relaxed) < 10 * MAX_READS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_without_an_answer_ends() {
        let refused = || ready(Err::<Timestamp, _>("connection refused"));
        assert_eq!(measure(&refused).await, Err("connection refused".to_owned()));
        let started = Instant::now();
        let silent = pending::<Result<Timestamp, String>>;
        assert_eq!(measure(&silent).await, Err("no answer within 10 s".to_owned()));
        assert_eq!(started.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_does_not_answer_holds_up_the_start_and_then_nothing() {
        let workers = Workers::new();
        let other = SharedClock { of: "database", leads: false };
        let refused = || ready(Err::<Timestamp, _>("connection refused"));
        let error = follow_clock(&workers, other, PERIOD, refused).await.unwrap_err();
        assert!(error.to_string().starts_with("the clock of the database was not there"), "{error}");
        let asked = AtomicUsize::new(0);
        let once = move || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => ready(Ok(clock::machine())),
            _ => ready(Err("connection refused")),
        };
        follow_clock(&workers, other, PERIOD, once).await.unwrap();
        sleep(10 * PERIOD).await;
        assert!(workers.is_ready());
        workers.stop_all(Instant::now()).await;
    }
}
