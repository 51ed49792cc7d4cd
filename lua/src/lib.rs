//! Every Redis script of Stampede, and the one typed API of each. Nobody else builds a key name or reads a reply.
//!
//! The decisions are inside the scripts (`lua/*/*.lua`), because a script is atomic: nothing else runs in between. This
//! crate packs arguments, runs the script on a pooled connection and parses its reply into an enum.
//!
//! ```no_run
//! use stampede_lua::{Redis, RedisConfig, RedisError, stock::{Decision, Reservation, Stock}};
//!
//! async fn reserve(url: String, event: stampede_vocab::EventId, asks: &[Reservation]) -> Result<(), RedisError> {
//!     let redis = Redis::connect(RedisConfig { url, key_prefix: String::new() }).await?;
//!     for decision in Stock::new(redis).reserve(event, asks).await? {
//!         match decision? {
//!             Decision::Held(hold) => println!("number {} to arrive", hold.arrival),
//!             Decision::Refused(refusal) => println!("{}", refusal.cause.as_str()),
//!             Decision::KnownBuyer(_) => println!("to be asked again, once the ledger was asked"),
//!         }
//!     }
//!     Ok(())
//! }
//! ```

#![warn(missing_docs)]

mod address;
mod clock;
mod connection;
pub mod coupon;
mod error;
pub mod gate;
mod keys;
mod memory;
mod probe;
mod redis;
mod refuse;
mod script;
pub mod stock;
pub mod timer;

pub use self::{
    error::RedisError,
    keys::{Keys, Timer},
    memory::Memory,
    redis::{Redis, RedisConfig},
    script::{Args, Script},
};
/// The reply types that the callers of scripts parse.
pub use ::redis::{FromRedisValue, Value};
