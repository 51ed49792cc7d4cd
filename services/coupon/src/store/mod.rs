//! The service's tables: SQL only, no decisions. Every function works on the connection it is given, so the caller
//! says what is one transaction.

pub mod campaigns;
pub mod coupons;
pub mod outbox;

use sqlx::{MySql, QueryBuilder};
use stampede_db::DbError;
use uuid::Uuid;

/// Puts `(?, ?, ...)` behind the query; the ids must not be empty.
fn push_ids(query: &mut QueryBuilder<MySql>, ids: impl IntoIterator<Item = Uuid>) {
    query.push("(");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id);
    }
    query.push(")");
}

/// A column that holds what no code of this service writes there.
fn misfit(column: &str, problem: impl std::fmt::Display) -> DbError {
    DbError::inconsistent(format!("{column}: {problem}"))
}
