//! The failures of the database, as finely as a caller acts on them.

use sqlx::mysql::MySqlDatabaseError;
use stampede_status::Problem;
use std::{sync::Arc, time::Duration};

/// Codes that both servers use for a transaction to be tried again: deadlock, lock wait time-out.
const TRY_AGAIN: [u16; 2] = [1213, 1205];

/// Codes of the last words on a session that the server has ended: it stops, the session was killed, or was idle.
const ENDED: [u16; 3] = [1053, 1927, 4031];

/// Codes by which a server refuses to write at all, as one does that is no longer the primary: it was started or set to
/// be read-only, or its transactions are.
const READ_ONLY: [u16; 3] = [1290, 1836, 1792];

/// Codes by which a server refuses what a statement writes, whenever it is tried: both servers use them, but for those
/// of a failed CHECK.
const REFUSED_DATA: [u16; 10] = [
    1048, // a column cannot be NULL
    1062, // duplicate entry
    1264, // out of range
    1265, // data truncated
    1292, // no such time or number
    1366, // no such character or number
    1406, // too long
    1690, // a sum is out of range
    3819, // CHECK failed, MySQL
    4025, // CHECK failed, MariaDB
];

/// A failure of the database, or of its contents. Cheap to clone: a failed batch fails for each call in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// The server or the connection to it.
    #[error("database: {0}")]
    Sqlx(Arc<sqlx::Error>),
    /// A row or a count of rows violates an invariant.
    #[error("inconsistent: {0}")]
    Inconsistent(String),
    /// A row has what only a newer release knows, such as a state that it has added: a replica of that release can read
    /// it, and this one after the roll-out.
    #[error("of a newer release: {0}")]
    Newer(String),
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
    /// The code of a unit of work panicked, and the transaction is rolled back. A bug, or invalid input.
    #[error("the unit of work {0} panicked")]
    Panicked(&'static str),
}

impl DbError {
    /// Returns the error for rows that violate an invariant.
    pub fn inconsistent(what: impl Into<String>) -> Self {
        Self::Inconsistent(what.into())
    }

    /// Returns the error for a row that only a newer release can read.
    pub fn newer(what: impl Into<String>) -> Self {
        Self::Newer(what.into())
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

    /// Returns whether the connection is lost, so that a new one may serve.
    pub(crate) fn is_lost_connection(&self) -> bool {
        let is_broken = matches!(self, Self::Sqlx(error) if matches!(**error, sqlx::Error::Io(_)));
        is_broken || self.server_error().is_some_and(|error| ENDED.contains(&error.number()))
    }

    /// Returns whether the server refuses to write, so that a new connection may lead to one that does.
    pub(crate) fn is_read_only(&self) -> bool {
        self.server_error().is_some_and(|error| READ_ONLY.contains(&error.number()))
    }

    /// Returns whether a statement that does not wait found a row locked: NOWAIT has a code of its own in MySQL, and
    /// that of a lock time-out in MariaDB.
    pub fn is_locked(&self) -> bool {
        self.server_error().is_some_and(|error| [3572, 1205].contains(&error.number()))
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
            Self::Inconsistent(_) | Self::Newer(_) | Self::Schema(_) | Self::Panicked(_) => false,
        }
    }

    /// Returns whether the work itself is at fault, so that it fails the same however long one waits: what it writes is
    /// refused, what it reads cannot be, or it panics. Anything else passes, though it may take hours and somebody who
    /// mends it: a full disk, a server that stops, too many connections, a password that was changed, a table that is
    /// not there, a column of another type, a row of a newer release.
    pub fn is_reproducible(&self) -> bool {
        match self {
            Self::Sqlx(error) => match &**error {
                sqlx::Error::Database(_) => self.server_error().is_some_and(|error| refuses_data(error.number())),
                sqlx::Error::ColumnDecode { source, .. } => !is_of_another_type(&**source),
                sqlx::Error::Encode(_) | sqlx::Error::Decode(_) => true,
                _ => false,
            },
            Self::Inconsistent(_) | Self::Panicked(_) => true,
            Self::Newer(_) | Self::Schema(_) | Self::BrokenOff(_) | Self::TimedOut { .. } => false,
        }
    }

    /// Returns whether a part of a batch may succeed where the whole fails: one row is at fault, or only a newer
    /// release can read it.
    pub fn is_of_data(&self) -> bool {
        self.is_reproducible() || matches!(self, Self::Newer(_))
    }

    /// For a row that may fail alone: returns what was read of it, or fails if every other row would fail likewise,
    /// because a column is missing or of another type.
    pub fn of_one_row<T>(read: Result<T, Self>) -> Result<Result<T, Self>, sqlx::Error> {
        match read {
            Err(error) if !error.is_of_data() => Err(sqlx::Error::Configuration(Box::new(error))),
            read => Ok(read),
        }
    }

    fn server_error(&self) -> Option<&MySqlDatabaseError> {
        match self {
            Self::Sqlx(error) => error.as_database_error().and_then(|error| error.try_downcast_ref()),
            _ => None,
        }
    }
}

/// Whether a column has not the type that the program reads it as: then every row has the same failure, and it is the
/// schema that is at fault. The library has no other sign of it than the text.
fn is_of_another_type(source: &(dyn std::error::Error + 'static)) -> bool {
    source.to_string().starts_with("mismatched types")
}

fn refuses_data(number: u16) -> bool {
    REFUSED_DATA.contains(&number)
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(Arc::new(error))
    }
}

/// Transient failures become UNAVAILABLE, since a retry may succeed: an unreachable server, a deadlock after all
/// retries, a server that is full, read-only or stopping, and rows of a newer release. All others become INTERNAL.
impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if error.is_reproducible() { Self::internal_error(error) } else { Self::unavailable("the database", error) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_statement_writes_is_refused_for_good() {
        for (number, why) in [(1048, "NULL"), (1062, "duplicate"), (1406, "too long"), (3819, "CHECK"), (4025, "CHECK")]
        {
            assert!(refuses_data(number), "{number}: {why}");
        }
        for (number, why) in [
            (1021, "disk full"),
            (1030, "storage engine"),
            (1040, "too many connections"),
            (1045, "password"),
            (1047, "cluster not ready"),
            (1053, "shutdown"),
            (1054, "no such column"),
            (1114, "tablespace full"),
            (1146, "no such table"),
            (1203, "too many connections of one user"),
            (1205, "lock wait"),
            (1213, "deadlock"),
            (1290, "read only"),
            (1317, "killed"),
            (1792, "read-only transaction"),
            (1836, "read-only mode"),
            (1927, "connection killed"),
            (3024, "statement too long"),
        ] {
            assert!(!refuses_data(number), "{number}: {why}");
        }
    }

    #[test]
    fn the_work_is_at_fault_only_where_waiting_changes_nothing() {
        for own in
            [DbError::inconsistent("two rows"), DbError::Panicked("w"), sqlx::Error::Decode("no UUID".into()).into()]
        {
            assert!(own.is_reproducible(), "{own}");
        }
        let column = |source: &str| sqlx::Error::ColumnDecode { index: "c".to_owned(), source: source.into() };
        assert!(DbError::from(column("invalid length: expected 16 bytes")).is_reproducible());
        let timed_out = DbError::TimedOut { name: "w", after: Duration::from_secs(5) };
        let retyped = column("mismatched types; Rust type `i32` is not compatible with SQL type `BIGINT`");
        let renamed = sqlx::Error::ColumnNotFound("c".to_owned());
        let others = [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed, renamed, retyped];
        let passing =
            [DbError::newer("state X"), DbError::Schema("behind".to_owned()), DbError::BrokenOff("w"), timed_out];
        for passing in passing.into_iter().chain(others.map(DbError::from)) {
            assert!(!passing.is_reproducible(), "{passing}");
        }
    }
}
