//! The service's SQL and nothing else: free functions on a connection, one file per table.

pub mod ledger;
pub mod outbox;
pub mod stock;

use stampede_db::DbError;

/// Fails unless the statement changed what it had to: the rows were locked, so anything else cannot be.
fn require_rows(what: &str, changed: u64, expected: usize) -> Result<(), DbError> {
    if changed == expected as u64 {
        Ok(())
    } else {
        Err(DbError::inconsistent(format!("{what} changed {changed} rows instead of {expected}")))
    }
}
