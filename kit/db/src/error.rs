//! The failures of the database, as finely as a caller acts on them.

use sqlx::mysql::MySqlDatabaseError;
use stampede_status::Problem;
use std::{sync::Arc, time::Duration};

/// Codes that both servers use for a transaction to be tried again: deadlock, lock wait time-out.
const TRY_AGAIN: [u16; 2] = [1213, 1205];

/// A failure of the database, or of what it holds. Cheap to clone: a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// The server or the connection to it.
    #[error("database: {0}")]
    Sqlx(Arc<sqlx::Error>),
    /// A row or a count of rows violates an invariant.
    #[error("inconsistent: {0}")]
    Inconsistent(String),
    /// The schema is not the one that this program was built for.
    #[error("{0}")]
    Schema(String),
    /// The task of a unit of work ended without an answer, as it does when the process is going down. Nobody knows
    /// whether it was committed.
    #[error("the unit of work {0} was broken off")]
    BrokenOff(&'static str),
    /// The server did not answer in time and its connection was given up. Nobody knows whether it was committed.
    #[error("{name} was not done within {after:?}")]
    TimedOut {
        /// The unit of work.
        name: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The code of a unit of work panicked: a fault of the program, or of what it was given. It is rolled back.
    #[error("the unit of work {0} panicked")]
    Panicked(&'static str),
}

impl DbError {
    /// Returns the error for rows that violate an invariant.
    pub fn inconsistent(what: impl Into<String>) -> Self {
        Self::Inconsistent(what.into())
    }

    /// Name of the unique key that refused the row; `None` for any other failure.
    pub fn unique_violation(&self) -> Option<&str> {
        let error = self.server_error().filter(|error| error.number() == 1062)?;
        // "Duplicate entry 'x' for key 'orders.PRIMARY'"; MariaDB leaves the table out.
        let key = error.message().rsplit("for key '").next()?.trim_end_matches('\'');
        Some(key.rsplit('.').next().unwrap_or(key))
    }

    /// Returns whether the same transaction may succeed if it is retried at once.
    pub fn is_deadlock(&self) -> bool {
        self.server_error().is_some_and(|error| TRY_AGAIN.contains(&error.number()))
    }

    /// Returns whether the server was unreachable or gave no answer, so that the request itself may be fine.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Sqlx(error) => matches!(
                **error,
                sqlx::Error::Io(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::WorkerCrashed
            ),
            Self::BrokenOff(_) | Self::TimedOut { .. } => true,
            Self::Inconsistent(_) | Self::Schema(_) | Self::Panicked(_) => false,
        }
    }

    fn server_error(&self) -> Option<&MySqlDatabaseError> {
        match self {
            Self::Sqlx(error) => error.as_database_error().and_then(|error| error.try_downcast_ref()),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(Arc::new(error))
    }
}

/// A deadlock after all retries is UNAVAILABLE like an unreachable server: both are transient, so a repeat may succeed.
impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if error.is_unreachable() || error.is_deadlock() {
            Self::unavailable("the database", error)
        } else {
            Self::internal_error(error)
        }
    }
}

/// Fails unless a statement changed as many rows as expected. For rows that are locked: any other count is
/// inconsistent.
pub fn ensure_rows(what: &str, changed: u64, expected: usize) -> Result<(), DbError> {
    if changed == expected as u64 {
        Ok(())
    } else {
        Err(DbError::inconsistent(format!("{what} changed {changed} rows instead of {expected}")))
    }
}
