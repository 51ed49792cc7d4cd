//! SQL only, no decisions: free functions on a connection, one file per table. The caller sets the bounds of
//! transactions.

pub mod campaigns;
pub mod coupons;
pub mod outbox;
pub mod refunded_orders;

use stampede_db::DbError;

/// Returns the error for a column with a value that this service never writes.
fn inconsistent(column: &str, problem: impl std::fmt::Display) -> DbError {
    DbError::inconsistent(format!("{column}: {problem}"))
}
