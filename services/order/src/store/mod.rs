//! SQL only: free functions on a connection, inside a transaction or not, one file per table or kind of query.

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

/// Most rows of one statement where an order has many: well under the packet limits of both servers.
const ROWS_PER_STATEMENT: usize = 2_000;
