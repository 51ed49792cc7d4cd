//! The stock scripts on a real Redis: window, limit, sold out, all or nothing, gifts, repeats, syncing and staging.
//!
//! Every test has a key prefix of its own, so they may run at once.

mod claiming;
mod deciding;
mod distrusting;
mod forgetting;
mod shelf;
mod syncing;
