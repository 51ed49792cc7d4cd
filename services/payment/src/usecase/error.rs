//! The errors of the use cases.

use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_vocab::InvalidField;

/// Why a use case failed. `Clone`, since a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A field has a value that is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// There is no such payment, or it is somebody else's.
    #[error("there is no such payment")]
    NotFound,
    #[error("the signature does not fit the payload")]
    InvalidSignature,
    /// The charge or refund of a notice was not looked up in time, or its payment cannot be read now.
    #[error("what the notice is about cannot be looked up now")]
    NotLookedUp(String),
    #[error(transparent)]
    Db(#[from] DbError),
    /// The batch queue is full, or the batch failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
}
