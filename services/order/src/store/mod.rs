//! SQL and nothing else, one file a table. Every function takes a connection, inside a transaction or not.

pub mod goods;
pub mod lines;
pub mod lists;
pub mod orders;
pub mod outbox;
pub mod pay_requests;
mod rows;

use sqlx::{MySql, QueryBuilder};
use uuid::Uuid;

/// Rows of one statement where an order has many: well under the 65,535 values that a statement may bind.
const ROWS_PER_STATEMENT: usize = 2_000;

/// Writes `(?, ?, ...)` for the ids, of which there is at least one.
///
/// The list is filled up to a power of two with the last id, so that a connection prepares and keeps a handful of
/// statements and not one for each size of a batch.
fn push_ids(query: &mut QueryBuilder<MySql>, ids: &[Uuid]) {
    let last = *ids.last().expect("a list of ids is not empty");
    query.push("(");
    let mut list = query.separated(", ");
    for index in 0..ids.len().next_power_of_two() {
        list.push_bind(ids.get(index).copied().unwrap_or(last));
    }
    query.push(")");
}
