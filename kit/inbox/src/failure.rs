//! Why a transaction of the consumer was rolled back.

use crate::{HandleError, rows::Aside};
use stampede_db::{DbError, WorkError};

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Db(#[from] DbError),
    /// A message that can never be applied.
    #[error("message {index} of the batch can never be applied: {why}")]
    Poison { index: usize, why: String },
    /// Some of the messages are not to be applied here.
    #[error("the batch has messages that are set aside, or are to be")]
    Aside(Aside),
}

impl Failure {
    /// Converts the error of a handler that was given `count` messages.
    pub fn of_handler(error: HandleError, count: usize) -> Self {
        match error {
            HandleError::Db(error) => Self::Db(error),
            HandleError::Poison { index, detail } if index < count => Self::Poison { index, why: detail },
            HandleError::Poison { index, detail } => {
                Self::Db(DbError::inconsistent(format!("message {index} of {count} is poison: {detail}")))
            }
        }
    }

    /// Whether a retry would fail again.
    pub fn is_reproducible(&self) -> bool {
        match self {
            Self::Db(error) => error.is_reproducible(),
            Self::Poison { .. } => true,
            Self::Aside(_) => false,
        }
    }
}

impl WorkError for Failure {
    fn as_db_error(&self) -> Option<&DbError> {
        match self {
            Self::Db(error) => Some(error),
            Self::Poison { .. } | Self::Aside(_) => None,
        }
    }
}
