//! The service's tables: SQL only, no decisions. Every function works on the conn it is given, so the caller
//! says what is one transaction.

pub mod campaigns;
pub mod coupons;
pub mod outbox;

use stampede_db::DbError;

/// A column that holds what no code of this service writes there.
fn misfit(column: &str, problem: impl std::fmt::Display) -> DbError {
    DbError::inconsistent(format!("{column}: {problem}"))
}
