//! SQL and nothing else, one file a table or what is read of it. Every function takes a connection, inside a
//! transaction or not.

pub mod cancellations;
pub mod due;
mod end_requests;
mod goods;
mod lines;
pub mod lists;
pub mod orders;
pub mod outbox;
mod packed;
mod pay_requests;
mod rows;

pub use rows::Stored;

/// Rows of one statement where an order has many, so that it stays well under the packet limits of both servers.
const ROWS_PER_STATEMENT: usize = 2_000;
