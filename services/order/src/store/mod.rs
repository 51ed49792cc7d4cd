//! SQL and nothing else, one file a table. Every function takes a connection, inside a transaction or not.

mod end_requests;
pub mod goods;
pub mod lines;
pub mod lists;
pub mod orders;
pub mod outbox;
pub mod pay_requests;
mod rows;

/// Rows of one statement where an order has many, so that it stays well under the packet limits of both servers.
const ROWS_PER_STATEMENT: usize = 2_000;
