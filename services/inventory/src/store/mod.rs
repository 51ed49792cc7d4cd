//! SQL only: free functions on a connection, one file per table.

pub mod ledger;
pub mod outbox;
pub mod reservations;
pub mod restages;
pub mod stock;
pub mod walks;
