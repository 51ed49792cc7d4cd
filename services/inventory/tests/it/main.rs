//! The inventory service through its contract: reservations, the ledger, what returns, and what happens when Redis is
//! lost.

mod bad_input;
mod cluster;
mod event_keys;
mod histories;
mod ledger;
mod memory;
mod old_copy;
mod random;
mod reservations;
mod sale;
mod shelf;
