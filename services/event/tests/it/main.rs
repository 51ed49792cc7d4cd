//! The event service through its gRPC API: processes on real servers, each test in a world of its own.

mod bad_input;
mod bad_rows;
mod clocks;
mod commands;
mod confirming;
mod faults;
mod memory;
mod opening;
mod races;
mod sale;
mod watching;
