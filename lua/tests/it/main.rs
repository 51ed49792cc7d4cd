//! Every script on a real Redis or a cluster, through its typed door, and what the user of the processes may do there.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod cluster;
mod connections;
mod coupon;
mod gate;
mod limit;
mod rights;
mod stock;
mod timer;
