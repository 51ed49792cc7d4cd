//! Retries of calls that may be repeated.

use crate::Deadline;
use stampede_status::{Problem, Reason};
use stampede_vocab::backoff;
use std::{future::Future, time::Duration};
use tokio::time::sleep;
use tonic::Status;

/// Makes a call, and retries it with back-off while it ends as UNAVAILABLE: if a replica has died or hangs, another one
/// most often answers. Makes at most `max_attempts`, the first one included, within `timeout` in all; after that the
/// call ends as DEADLINE_EXCEEDED.
///
/// Returns OVERLOADED and NOT_READY at once, which immediate retries would make worse. The call must be idempotent: an
/// attempt that failed may have taken effect.
pub async fn retry_unavailable<T, Fut>(
    max_attempts: u32,
    timeout: Duration,
    call: impl Fn() -> Fut,
) -> Result<T, Status>
where
    Fut: Future<Output = Result<T, Status>>,
{
    let outcome = Deadline::after(timeout).bound(attempt_up_to(max_attempts, call)).await;
    outcome.unwrap_or_else(|problem| Err(problem.into()))
}

async fn attempt_up_to<T, Fut>(max_attempts: u32, call: impl Fn() -> Fut) -> Result<T, Status>
where
    Fut: Future<Output = Result<T, Status>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(status) if attempt < max_attempts && is_unavailable(&status) => {
                sleep(backoff(attempt)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn is_unavailable(status: &Status) -> bool {
    Problem::from_status(status).reason() == Reason::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::Instant;
    use tonic::Code;

    const MAX_ATTEMPTS: u32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Returns the outcome of a call whose attempts, counted from 1, are answered so, and how many were made.
    async fn outcome_of(answer: impl Fn(u32) -> Result<(), Status>) -> (Result<(), Status>, u32) {
        let attempts = AtomicU32::new(0);
        let outcome = retry_unavailable(MAX_ATTEMPTS, TIMEOUT, || {
            let answer = answer(attempts.fetch_add(1, Ordering::Relaxed) + 1);
            async move { answer }
        })
        .await;
        (outcome, attempts.into_inner())
    }

    async fn attempts(answer: impl Fn() -> Status) -> u32 {
        let (outcome, attempts) = outcome_of(|_| Err(answer())).await;
        assert!(outcome.is_err());
        attempts
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_nobody_could_take_is_asked_again() {
        let of = |reason| move || Status::from(Problem::new(reason, "no"));
        assert_eq!(attempts(|| Status::unavailable("connection refused")).await, MAX_ATTEMPTS);
        assert_eq!(attempts(of(Reason::Unavailable)).await, MAX_ATTEMPTS);
        for final_answer in [Reason::Overloaded, Reason::NotReady, Reason::DeadlineExceeded, Reason::CouponInUse] {
            assert_eq!(attempts(of(final_answer)).await, 1, "{final_answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_ends_the_attempts() {
        let answer = |attempt: u32| if attempt == 2 { Ok(()) } else { Err(Status::unavailable("connection refused")) };
        let (outcome, attempts) = outcome_of(answer).await;
        assert_eq!((outcome.is_ok(), attempts), (true, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn all_attempts_together_end_at_the_timeout() {
        let begun = Instant::now();
        let hung = retry_unavailable(MAX_ATTEMPTS, TIMEOUT, std::future::pending::<Result<(), Status>>).await;
        assert_eq!(hung.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    }
}
