//! The service's SQL and nothing else: free functions on a connection, one file per table.

pub mod events;
pub mod items;
pub mod outbox;

use sqlx::{MySql, QueryBuilder};
use stampede_db::DbError;
use stampede_vocab::EventId;

/// Appends `(?, ?, ...)` for these ids.
fn push_ids(query: &mut QueryBuilder<MySql>, ids: &[EventId]) {
    query.push("(");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id.uuid());
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
