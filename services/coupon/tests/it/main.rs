//! The coupon service through its gRPC API: processes on real servers, each test in a world of its own.

mod bad_input;
mod bad_rows;
mod broken;
mod claiming;
mod frozen;
mod holding;
mod idle;
mod loading;
mod memory;
mod mending;
mod ordering;
mod reading;
mod sale;
