//! The errors of the use cases.

use crate::{client::Unconfirmed, domain::Refusal};
use stampede_db::{DbError, WorkError};

/// Why a use case failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Db(#[from] DbError),
    /// The change is stored, and inventory has not confirmed it.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
}

/// A refusal rolls the transaction back.
impl WorkError for Error {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Refused(_) | Self::Unconfirmed(_) => None,
        }
    }
}
