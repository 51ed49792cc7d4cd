//! The inventory service through its contract: holds, the ledger, what returns, and what happens when Redis is lost.

mod bad_input;
mod holds;
mod ledger;
mod sale;
mod shelf;
