//! SQL only: free functions on a connection, one file per table, and one for what is due.

pub mod due;
pub mod events;
pub mod items;
pub mod outbox;
