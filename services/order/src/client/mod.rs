//! Calls to the services that an order needs. Beside `rpc/convert.rs` and `wire.rs` the only place that touches proto
//! types: what comes back from here is of the domain.

mod coupon;
mod inventory;

pub use coupon::Coupons;
pub use inventory::Inventory;

use stampede_batch::BatchError;
use std::future::Future;
use tonic::{Code, Status};

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

/// Makes a call again if no replica could take it. Every call here may be repeated: the order id names it.
async fn persistently<T, Fut>(call: impl Fn() -> Fut) -> Result<T, Status>
where
    Fut: Future<Output = Result<T, Status>>,
{
    let mut attempt = 1;
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && attempt < ATTEMPTS => {
                tokio::time::sleep(stampede_chassis::backoff(attempt)).await;
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}
