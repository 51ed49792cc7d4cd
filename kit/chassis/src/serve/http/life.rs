//! What one connection is doing, and whether it may go on.

use super::bounds::{HttpBounds, LEAVE_DEADLINE};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The life of one connection.
pub(super) struct Life {
    /// Cancelled to close the connection at once.
    pub(super) cut: CancellationToken,
    state: Mutex<State>,
}

struct State {
    /// Requests whose answers are not written yet.
    under_way: usize,
    /// When that became zero.
    quiet_since: Instant,
    /// When the head began to arrive that is waited for.
    head_since: Option<Instant>,
    /// Whether there was a request.
    has_asked: bool,
    is_http2: bool,
}

/// The state of a connection in the eyes of its bounds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then.
    Wait(Instant),
    /// Ask it to end once its requests are answered.
    Leave(&'static str),
    /// Close it.
    Cut(&'static str),
}

impl Life {
    /// A connection that begins: its first head is waited for from now on.
    pub(super) fn begin() -> Arc<Life> {
        let now = Instant::now();
        let state = State { under_way: 0, quiet_since: now, head_since: Some(now), has_asked: false, is_http2: false };
        Arc::new(Life { cut: CancellationToken::new(), state: Mutex::new(state) })
    }

    /// Bytes have arrived. Over HTTP/2, where they may be anything, they begin no head.
    pub(super) fn arrived(&self) {
        let mut state = self.state();
        if state.under_way == 0 && !state.is_http2 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// A head has arrived whole. The request is under way until the value is dropped.
    pub(super) fn ask(self: &Arc<Self>, is_http2: bool) -> Exchange {
        let mut state = self.state();
        state.under_way += 1;
        state.head_since = None;
        state.has_asked = true;
        state.is_http2 = is_http2;
        drop(state);
        Exchange { life: Arc::clone(self) }
    }

    /// Whether there was a request, and since when there is none; `None` while there is one.
    pub(super) fn quiet(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        (state.under_way == 0).then_some((state.has_asked, state.quiet_since))
    }

    /// Judges the connection, which was asked to leave at `leaving`, and is to be at `retires`.
    pub(super) fn judge(&self, bounds: &HttpBounds, leaving: Option<Instant>, retires: Instant) -> Verdict {
        let (state, now) = (self.state(), Instant::now());
        let is_quiet = state.under_way == 0;
        let head = state.head_since.filter(|_| is_quiet).map(|since| since + bounds.head_deadline);
        if head.is_some_and(|deadline| deadline <= now) {
            return Verdict::Cut("head");
        }
        if let Some(since) = leaving {
            let is_late = is_quiet && since + LEAVE_DEADLINE <= now;
            return if is_late { Verdict::Cut("leaving") } else { Verdict::Wait(now + LEAVE_DEADLINE) };
        }
        if retires <= now {
            return Verdict::Leave("age");
        }
        let idle = is_quiet.then(|| state.quiet_since + bounds.idle_deadline);
        if idle.is_some_and(|deadline| deadline <= now) {
            return Verdict::Leave("idle");
        }
        // What begins right after this look is late no sooner than that.
        let next_look = now + bounds.head_deadline.min(bounds.idle_deadline);
        let soonest = [head, idle].into_iter().flatten().fold(next_look, Instant::min);
        Verdict::Wait(soonest.min(retires))
    }

    /// Nothing under this lock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way on a connection, until its answer is written.
pub(super) struct Exchange {
    life: Arc<Life>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.life.state();
        state.under_way -= 1;
        if state.under_way == 0 {
            state.quiet_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn judge(life: &Life) -> Verdict {
        life.judge(&HttpBounds::default(), None, Instant::now() + Duration::from_secs(3_600))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_cut_at_the_deadline_of_its_head() {
        let (life, bounds) = (Life::begin(), HttpBounds::default());
        assert_eq!(judge(&life), Verdict::Wait(Instant::now() + bounds.head_deadline));
        advance(bounds.head_deadline).await;
        assert_eq!(judge(&life), Verdict::Cut("head"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_no_deadline_here_and_an_idle_connection_has() {
        let (life, bounds) = (Life::begin(), HttpBounds::default());
        let exchange = life.ask(false);
        advance(bounds.idle_deadline * 2).await;
        assert!(matches!(judge(&life), Verdict::Wait(_)));
        drop(exchange);
        advance(bounds.idle_deadline / 2).await;
        assert!(matches!(judge(&life), Verdict::Wait(_)));
        advance(bounds.idle_deadline / 2).await;
        assert_eq!(judge(&life), Verdict::Leave("idle"));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_late_and_a_ping_is_no_head() {
        for (is_http2, expected_cut) in [(false, true), (true, false)] {
            let (life, bounds) = (Life::begin(), HttpBounds::default());
            drop(life.ask(is_http2));
            life.arrived();
            advance(bounds.head_deadline).await;
            assert_eq!(judge(&life) == Verdict::Cut("head"), expected_cut, "HTTP/2: {is_http2}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_asked_to_leave_and_cut_if_it_does_not() {
        let (life, bounds) = (Life::begin(), HttpBounds::default());
        drop(life.ask(true));
        let now = Instant::now();
        assert_eq!(life.judge(&bounds, None, now), Verdict::Leave("age"));
        assert!(matches!(life.judge(&bounds, Some(now), now), Verdict::Wait(_)));
        let exchange = life.ask(true);
        advance(LEAVE_DEADLINE).await;
        assert!(matches!(life.judge(&bounds, Some(now), now), Verdict::Wait(_)), "its answer is still written");
        drop(exchange);
        assert_eq!(life.judge(&bounds, Some(now), now), Verdict::Cut("leaving"));
    }
}
