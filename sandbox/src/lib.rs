//! A payment provider to practise against: the test mode of a card processor, as a process of its own.
//!
//! It takes charges and refunds over HTTP/JSON, each under an idempotency key, and keeps a book of its own in an
//! append-only [`journal`], so that what it captured survives a kill. How a charge ends is chosen by the token of the
//! [`card`]; some tokens answer late, lose the first request or capture long afterwards, which is where payment
//! services go wrong. It knows nothing of orders and shares no code with the service that calls it.

mod api;
mod book;
mod card;
mod config;
mod failure;
mod journal;
mod process;
mod server;
mod signature;
mod till;
mod webhook;

pub use config::Config;
pub use process::run;
pub use server::serve;
