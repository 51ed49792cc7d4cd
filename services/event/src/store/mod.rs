//! SQL only: free functions on a connection, one file per table.

pub mod events;
pub mod items;
pub mod outbox;
