//! A payment provider to practise against: the test mode of a card processor, as a process of its own.
//!
//! It takes charges and refunds over HTTP/JSON, each under an idempotency key, and keeps its own records in an
//! append-only [`journal`], so that captures survive a kill. The token of the [`card`] chooses how a charge ends; some
//! tokens answer late, lose the first request or capture long afterwards, which is where payment services go wrong. In
//! its seeded mode good cards meet with the same faults by chance ([`fate`]). It has no orders and shares no code with
//! the service that calls it.
//!
//! It runs as `stampede serve sandbox`; `--help` has an example.

mod api;
mod card;
mod config;
mod failure;
mod fate;
mod journal;
mod process;
mod processor;
mod records;
mod server;
mod signature;
mod webhook;

pub use config::{Config, Mode};
pub use fate::FaultRate;
pub use process::run;
pub use server::serve;
