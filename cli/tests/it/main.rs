//! Whole sales on a whole mesh of real processes, ended by the operator's audit.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod audit;
mod breaks;
mod command;
mod faults;
mod purchase;
mod sale;
mod trace;
