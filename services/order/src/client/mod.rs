//! Calls to the services that an order needs. Beside `rpc/convert.rs` and `wire.rs` the only place that touches proto
//! types: what comes back from here is of the domain.

mod coupon;
mod inventory;

pub use coupon::Coupons;
pub use inventory::Inventory;

use stampede_batch::BatchError;
use stampede_status::{Problem, Reason};
use std::future::Future;
use tonic::Status;

/// How often a call is made in all, if nobody answers.
const ATTEMPTS: u32 = 3;

/// A service that did not do what it was asked for, for a reason that is not the buyer's.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// It, or the way to it, failed.
    #[error("the {peer} service answered {:?}: {}", status.code(), status.message())]
    Failed {
        /// Name of the service.
        peer: &'static str,
        /// What was answered.
        status: Status,
    },
    /// It was not asked, because too many calls to it are waiting.
    #[error("a call to the {peer} service: {error}")]
    NotAsked {
        /// Name of the service.
        peer: &'static str,
        /// Why.
        error: BatchError,
    },
}

impl PeerError {
    /// An answer that the contract does not allow.
    fn senseless(peer: &'static str, what: &str) -> Self {
        Self::Failed { peer, status: Status::internal(what) }
    }
}

/// Makes a call again if it did not reach a replica, or that could not reach what it needs. One that is overloaded, or
/// not ready, says so to whoever can wait: asking it at once again would make it worse. Every call here may be
/// repeated: the order id names it.
async fn persistently<T, Fut>(call: impl Fn() -> Fut) -> Result<T, Status>
where
    Fut: Future<Output = Result<T, Status>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(status) if attempt < ATTEMPTS && is_unreachable(&status) => {
                tokio::time::sleep(stampede_chassis::backoff(attempt)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn is_unreachable(status: &Status) -> bool {
    Problem::from_status(status).reason() == Reason::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn attempts(answer: impl Fn() -> Status) -> u32 {
        let attempts = AtomicU32::new(0);
        let outcome: Result<(), Status> = persistently(|| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let answer = Err(answer());
            async move { answer }
        })
        .await;
        assert!(outcome.is_err());
        attempts.into_inner()
    }

    #[tokio::test]
    async fn only_what_nobody_could_take_is_asked_again() {
        let of = |reason| move || Status::from(Problem::new(reason, "no"));
        assert_eq!(attempts(|| Status::unavailable("connection refused")).await, ATTEMPTS);
        assert_eq!(attempts(of(Reason::Unavailable)).await, ATTEMPTS);
        for final_answer in [Reason::Overloaded, Reason::NotReady, Reason::DeadlineExceeded, Reason::CouponInUse] {
            assert_eq!(attempts(of(final_answer)).await, 1, "{final_answer}");
        }
    }
}
