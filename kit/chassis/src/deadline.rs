//! Deadline of a call, and how it is propagated: as the header `grpc-timeout`, a request extension, and a task-local
//! that calls made on the way inherit.

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use stampede_status::{Problem, Reason};
use std::{fmt::Write, future::Future, time::Duration};
use tokio::time::{Instant, timeout_at};

/// The gRPC header with the time that the caller waits.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

tokio::task_local! {
    static CURRENT: Deadline;
}

/// When the caller stops waiting. In a handler it is a request extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline `wait` from now.
    pub fn after(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait)
    }

    /// Returns the deadline of the call that this task handles, if any. Tasks spawned by a handler do not inherit it.
    pub fn current() -> Option<Deadline> {
        CURRENT.try_with(|deadline| *deadline).ok()
    }

    /// Returns the instant.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Returns the remaining time; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns the problem for a caller whose deadline has passed.
    pub fn exceeded() -> Problem {
        Problem::new(Reason::DeadlineExceeded, "the deadline of the call has passed")
    }

    /// Runs `work`, whose calls inherit the deadline.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Runs `work`, whose calls inherit the deadline. Fails once it has passed.
    pub fn bound<F: Future>(self, work: F) -> impl Future<Output = Result<F::Output, Problem>> {
        timeout_at(self.0, self.scope(work)).map(|outcome| outcome.map_err(|_| Deadline::exceeded()))
    }

    /// Reads the header; a malformed one counts as absent.
    pub fn from_headers(headers: &HeaderMap) -> Option<Deadline> {
        let wait = parse_timeout(headers.get(GRPC_TIMEOUT)?.to_str().ok()?)?;
        Instant::now().checked_add(wait).map(Deadline)
    }

    /// Returns the remaining time in the format of the header.
    pub(crate) fn to_header(self) -> HeaderValue {
        let mut text = String::with_capacity(10);
        write!(text, "{}", TimeoutText(self.remaining())).expect("a string takes any text");
        HeaderValue::try_from(text).expect("digits and a letter make a header value")
    }
}

/// Parses up to eight digits and a unit: H, M, S, m, u or n.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A duration in the finest unit that fits eight digits.
struct TimeoutText(Duration);

impl std::fmt::Display for TimeoutText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MAX_VALUE: u128 = 99_999_999;
        match (self.0.as_micros(), self.0.as_millis()) {
            (micros, _) if micros <= MAX_VALUE => write!(f, "{micros}u"),
            (_, millis) if millis <= MAX_VALUE => write!(f, "{millis}m"),
            _ => write!(f, "{}S", u128::from(self.0.as_secs()).min(MAX_VALUE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("12", None),
            ("-1S", None),
            ("+1S", None),
            ("1é", None),
            ("123456789S", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn timeouts_are_written_so_that_they_can_be_read() {
        for wait in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(99), Duration::from_secs(86_400)] {
            assert_eq!(parse_timeout(&TimeoutText(wait).to_string()), Some(wait));
        }
        assert!(parse_timeout(&TimeoutText(Duration::MAX).to_string()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_at_its_deadline_and_knows_it() {
        let deadline = Deadline::after(Duration::from_millis(50));
        let seen = deadline.bound(async { Deadline::current() }).await;
        assert_eq!(seen, Ok(Some(deadline)));
        let late = deadline.bound(std::future::pending::<()>()).await;
        assert_eq!(late.unwrap_err().reason(), Reason::DeadlineExceeded);
        assert_eq!(Deadline::current(), None);
    }
}
