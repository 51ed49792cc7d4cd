//! The service's SQL and nothing else: free functions on a connection, one file per table.

pub mod ledger;
pub mod outbox;
pub mod stock;

use sqlx::{MySql, QueryBuilder};
use stampede_db::DbError;
use uuid::Uuid;

/// Appends `(?, ?, ...)` for these ids, of which there must be one.
fn push_ids(query: &mut QueryBuilder<MySql>, ids: impl IntoIterator<Item = Uuid>) {
    query.push("(");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id);
    }
    query.push(")");
}

/// Fails unless the statement changed what it had to: the rows were locked, so anything else cannot be.
fn require_rows(what: &str, changed: u64, expected: usize) -> Result<(), DbError> {
    if changed == expected as u64 {
        Ok(())
    } else {
        Err(DbError::inconsistent(format!("{what} changed {changed} rows instead of {expected}")))
    }
}
