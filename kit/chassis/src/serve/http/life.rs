//! State of one connection, and the deadlines that follow from it.

use super::bounds::HttpBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// State of one connection, shared by its socket and its requests.
pub(super) struct Life {
    /// Cancelled to close the connection at once.
    pub(super) cut: CancellationToken,
    state: Mutex<State>,
}

struct State {
    /// Requests whose answers are not fully written.
    under_way: usize,
    /// When that became zero.
    idle_since: Instant,
    /// When the first byte of the pending request head arrived.
    head_since: Option<Instant>,
    /// Whether there was a request.
    had_request: bool,
    is_http2: bool,
    /// Whether it was asked to end once its requests are answered.
    is_leaving: bool,
}

/// What a connection does, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its first request head is waited for, or the rest of a later one.
    Head,
    /// It has no request.
    Idle,
    /// A request is under way.
    Busy,
}

impl Phase {
    /// All phases, in the order of their numbers.
    pub(super) const ALL: [Phase; 3] = [Phase::Head, Phase::Idle, Phase::Busy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Head => "head",
            Phase::Idle => "idle",
            Phase::Busy => "busy",
        }
    }
}

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Check again at this time.
    Wait(Instant),
    /// Ask it to end once its requests are answered, for this limit.
    Leave(&'static str),
    /// Close it, for this limit.
    Cut(&'static str),
}

impl Life {
    /// A new connection, whose first request head is due.
    pub(super) fn begin() -> Arc<Life> {
        let now = Instant::now();
        let state = State {
            under_way: 0,
            idle_since: now,
            head_since: Some(now),
            had_request: false,
            is_http2: false,
            is_leaving: false,
        };
        Arc::new(Life { cut: CancellationToken::new(), state: Mutex::new(state) })
    }

    /// Notes that bytes have arrived, which may start a request head. Over HTTP/2 they may be any frame, and do not.
    pub(super) fn arrived(&self) {
        let mut state = self.state();
        if state.under_way == 0 && !state.is_http2 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// Returns what the connection does.
    pub(super) fn phase(&self) -> Phase {
        let state = self.state();
        match (state.under_way, state.head_since) {
            (1.., _) => Phase::Busy,
            (0, Some(_)) => Phase::Head,
            (0, None) => Phase::Idle,
        }
    }

    /// Notes that a request head has arrived. The request is under way until the returned value is dropped.
    pub(super) fn begin_request(self: &Arc<Self>, is_http2: bool) -> Exchange {
        let mut state = self.state();
        state.under_way += 1;
        state.head_since = None;
        state.had_request = true;
        state.is_http2 = is_http2;
        drop(state);
        Exchange { life: Arc::clone(self) }
    }

    /// Notes that the connection is asked to end once its requests are answered.
    pub(super) fn leave(&self) {
        self.state().is_leaving = true;
    }

    /// Returns whether the peer's end is waited for after our own. Over HTTP/2 only where we ask for it: when hyper has
    /// ended a connection for its errors, such as a flood, it begins the requests that are queued on it for as long as
    /// the end takes.
    pub(super) fn lingers(&self) -> bool {
        let state = self.state();
        state.is_leaving || (state.had_request && !state.is_http2)
    }

    /// Returns whether there was a request and since when the connection is idle; `None` while a request is under way.
    pub(super) fn idle(&self) -> Option<(bool, Instant)> {
        let state = self.state();
        (state.under_way == 0).then_some((state.had_request, state.idle_since))
    }

    /// Checks the deadlines of the connection, which was asked to end at `leaving`, and is to be asked at `retires_at`.
    pub(super) fn judge(&self, bounds: &HttpBounds, leaving: Option<Instant>, retires_at: Instant) -> Verdict {
        let (state, now) = (self.state(), Instant::now());
        let is_idle = state.under_way == 0;
        let head = state.head_since.filter(|_| is_idle).map(|since| since + bounds.head_deadline);
        if head.is_some_and(|deadline| deadline <= now) {
            return Verdict::Cut("head");
        }
        if let Some(since) = leaving {
            let is_late = is_idle && since + bounds.leave_deadline <= now;
            return if is_late { Verdict::Cut("leaving") } else { Verdict::Wait(now + bounds.leave_deadline) };
        }
        if retires_at <= now {
            return Verdict::Leave("age");
        }
        let idle = is_idle.then(|| state.idle_since + bounds.idle_deadline);
        if idle.is_some_and(|deadline| deadline <= now) {
            return Verdict::Leave("idle");
        }
        // A request or idle time that begins after this check cannot be late before that.
        let next_check = now + bounds.head_deadline.min(bounds.idle_deadline);
        let soonest = [head, idle].into_iter().flatten().fold(next_check, Instant::min);
        Verdict::Wait(soonest.min(retires_at))
    }

    /// No code panics while it has this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way on a connection, until its answer is written.
pub(super) struct Exchange {
    life: Arc<Life>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.life.state();
        state.under_way -= 1;
        if state.under_way == 0 {
            state.idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

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
        let exchange = life.begin_request(false);
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
            drop(life.begin_request(is_http2));
            life.arrived();
            advance(bounds.head_deadline).await;
            assert_eq!(judge(&life) == Verdict::Cut("head"), expected_cut, "HTTP/2: {is_http2}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_its_head_is_busy_and_idle_by_turns() {
        for is_http2 in [false, true] {
            let life = Life::begin();
            assert_eq!(life.phase(), Phase::Head);
            let exchange = life.begin_request(is_http2);
            assert_eq!(life.phase(), Phase::Busy);
            drop(exchange);
            assert_eq!(life.phase(), Phase::Idle);
            life.arrived();
            assert_eq!(life.phase(), if is_http2 { Phase::Idle } else { Phase::Head });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_http2_only_the_end_of_who_is_asked_to_leave_is_waited_for() {
        for (is_http2, leaves, expected) in [(false, false, true), (true, false, false), (true, true, true)] {
            let life = Life::begin();
            assert!(!life.lingers(), "it may be a flood of HTTP/2");
            drop(life.begin_request(is_http2));
            if leaves {
                life.leave();
            }
            assert_eq!(life.lingers(), expected, "HTTP/2: {is_http2}, leaves: {leaves}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_asked_to_leave_and_cut_if_it_does_not() {
        let (life, bounds) = (Life::begin(), HttpBounds::default());
        drop(life.begin_request(true));
        let now = Instant::now();
        assert_eq!(life.judge(&bounds, None, now), Verdict::Leave("age"));
        assert!(matches!(life.judge(&bounds, Some(now), now), Verdict::Wait(_)));
        let exchange = life.begin_request(true);
        advance(bounds.leave_deadline).await;
        assert!(matches!(life.judge(&bounds, Some(now), now), Verdict::Wait(_)), "its answer is still written");
        drop(exchange);
        assert_eq!(life.judge(&bounds, Some(now), now), Verdict::Cut("leaving"));
    }
}
