//! The errors of the use cases.

use crate::domain::{ClaimRefusal, CreateRefusal};
use stampede_batch::BatchError;
use stampede_db::{DbError, WorkError};
use stampede_lua::RedisError;

/// Why a use case failed. `Clone`, since a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Claim(#[from] ClaimRefusal),
    #[error(transparent)]
    Create(#[from] CreateRefusal),
    #[error("there is no such campaign")]
    CampaignNotFound,
    /// There is no such coupon, or it is another user's.
    #[error("there is no such coupon")]
    CouponNotFound,
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The batch queue is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// A refusal rolls the transaction back.
impl WorkError for Error {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Claim(_)
            | Self::Create(_)
            | Self::CampaignNotFound
            | Self::CouponNotFound
            | Self::Redis(_)
            | Self::Batch(_) => None,
        }
    }
}
