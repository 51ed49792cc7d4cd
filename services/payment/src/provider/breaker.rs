//! The circuit breaker of the provider. After some failures in a row it opens: nothing is sent for a while, and charges
//! stay queued. Then it is half-open: one request is a probe, whose answer closes the breaker and whose failure opens
//! it for longer.
//!
//! It measures the health of the provider alone: any answer is a success, a decline too. Order deadlines do not wait
//! for it: an attempt that is queued when its order ends is never charged.

use opentelemetry::{
    global,
    metrics::{Counter, Gauge},
};
use stampede_vocab::backoff_within;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Upper bound of the back-off between two probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// The first back-off; it doubles each time, up to ten seconds.
    pub pause: Duration,
    pub probe_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything is sent.
    Closed { failures: u32 },
    /// Nothing is sent before `until`.
    Open { until: Instant, openings: u32 },
    /// A probe is under way; another is allowed at `until`.
    HalfOpen { until: Instant, openings: u32 },
}

/// A breaker. Clones share it.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: Arc<Mutex<State>>,
    is_open: Gauge<u64>,
    openings: Counter<u64>,
}

impl Breaker {
    /// Returns a closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        let meter = global::meter("stampede.payment");
        let is_open = meter
            .u64_gauge("stampede_payment_breaker_open")
            .with_description("1 while requests to the provider are held back because it fails, else 0")
            .build();
        let openings = meter
            .u64_counter("stampede_payment_breaker_openings")
            .with_description("How often requests to the provider began to be held back, or went on to be")
            .build();
        is_open.record(0, &[]);
        Self { policy, state: Arc::new(Mutex::new(State::Closed { failures: 0 })), is_open, openings }
    }

    /// Returns whether all requests are sent.
    pub fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed { .. })
    }

    /// Returns how many of `wanted` requests may be prepared now: all, none, or the probe.
    pub fn allowance(&self, wanted: u32) -> u32 {
        match *self.state() {
            State::Closed { .. } => wanted,
            State::Open { until, .. } | State::HalfOpen { until, .. } if Instant::now() >= until => wanted.min(1),
            State::Open { .. } | State::HalfOpen { .. } => 0,
        }
    }

    /// Returns whether a request may be sent. Each that is sent has to be followed by [`Breaker::record`].
    pub(super) fn admit(&self) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        match *state {
            State::Closed { .. } => true,
            State::Open { until, openings } | State::HalfOpen { until, openings } if now >= until => {
                *state = State::HalfOpen { until: now + self.policy.probe_timeout, openings };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// Records the result of a request. While the breaker is open, requests that were sent before do not count.
    pub(super) fn record(&self, has_failed: bool) {
        let mut state = self.state();
        *state = match (*state, has_failed) {
            (State::Closed { failures }, true) if failures + 1 >= self.policy.failures => self.opened(0),
            (State::Closed { failures }, true) => State::Closed { failures: failures + 1 },
            (State::Closed { .. }, false) => State::Closed { failures: 0 },
            (State::HalfOpen { openings, .. }, true) => self.opened(openings),
            (State::HalfOpen { .. }, false) => self.closed(),
            (State::Open { until, openings }, _) => State::Open { until, openings },
        };
    }

    fn opened(&self, before: u32) -> State {
        let pause = backoff_within(self.policy.pause, LONGEST_PAUSE, before);
        self.is_open.record(1, &[]);
        self.openings.add(1, &[]);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(breaker.pause_ms = pause_ms, "the provider fails: requests to it are held back");
        State::Open { until: Instant::now() + pause, openings: before.saturating_add(1) }
    }

    fn closed(&self) -> State {
        self.is_open.record(0, &[]);
        tracing::info!("the provider answers again");
        State::Closed { failures: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const PAUSE: Duration = Duration::from_secs(1);
    const PROBE: Duration = Duration::from_secs(2);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy { failures: 3, pause: PAUSE, probe_timeout: PROBE })
    }

    fn fail(breaker: &Breaker, times: usize) {
        for _ in 0..times {
            assert!(breaker.admit());
            breaker.record(true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_others_do_not() {
        let breaker = breaker();
        fail(&breaker, 2);
        breaker.record(false);
        fail(&breaker, 2);
        assert!(breaker.is_closed() && breaker.allowance(256) == 256);
        fail(&breaker, 1);
        assert!(!breaker.is_closed() && !breaker.admit());
        assert_eq!(breaker.allowance(256), 0);
        // The late answer to what was sent before.
        breaker.record(false);
        assert!(!breaker.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_is_let_through_and_decides() {
        let breaker = breaker();
        fail(&breaker, 3);
        advance(PAUSE).await;
        assert_eq!((breaker.allowance(256), breaker.allowance(0)), (1, 0));
        assert!(breaker.admit() && !breaker.admit(), "one at a time");
        assert_eq!(breaker.allowance(256), 0);
        breaker.record(false);
        assert!(breaker.is_closed() && breaker.admit());
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_of_that_request_makes_the_pause_longer_up_to_a_bound() {
        let breaker = breaker();
        fail(&breaker, 3);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let begun = Instant::now();
            while breaker.allowance(1) == 0 {
                advance(Duration::from_millis(10)).await;
            }
            pauses.push(begun.elapsed());
            fail(&breaker, 1);
        }
        assert!(pauses[0] <= PAUSE + Duration::from_millis(10), "{pauses:?}");
        assert!(pauses[5] >= LONGEST_PAUSE / 2, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE + Duration::from_millis(10)), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_is_followed_by_another() {
        let breaker = breaker();
        fail(&breaker, 3);
        advance(PAUSE).await;
        assert!(breaker.admit());
        advance(PROBE).await;
        assert!(breaker.admit());
    }
}
