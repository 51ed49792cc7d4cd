//! The service's tables: SQL only, no decisions. Every function works on the conn it is given, so the caller
//! says what is one transaction.

pub mod campaigns;
pub mod coupons;
pub mod outbox;
pub mod refunded_orders;

use stampede_db::DbError;

/// Returns the error for a column with a value that this service never writes.
fn inconsistent(column: &str, problem: impl std::fmt::Display) -> DbError {
    DbError::inconsistent(format!("{column}: {problem}"))
}
