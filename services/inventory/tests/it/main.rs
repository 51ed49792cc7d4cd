//! The inventory service through its contract: reservations, the ledger, what returns, and what happens when Redis is
//! lost.

mod bad_input;
mod cluster;
mod crash_points;
mod crashed_orders;
mod crashed_workers;
mod earlier_release;
mod event_keys;
mod histories;
mod idle;
mod ledger;
mod memory;
mod old_copy;
mod order_histories;
mod orders;
mod random;
mod rebuild;
mod repeats;
mod reservations;
mod rolled_back;
mod runs;
mod sale;
mod shelf;
mod staging;
mod stand;
mod tables;
