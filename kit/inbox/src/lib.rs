//! The idempotent consumer: applies messages in batches, and handles dead letters.
//!
//! Delivery is at least once: the effects and the outbox rows of a batch are written in one transaction, and the offset
//! is committed after it. Any message may be delivered again at any later time, so handlers must be idempotent
//! ([`Handler::apply`]).
//!
//! While the database fails, the consumer retries with back-off. A poison message is found by bisecting its batch, and
//! becomes a dead letter: a row in the schema of the service. Its key is parked in the same transaction, and later
//! messages of the key become dead letters too. So does a record that is no message. An operator decides whether the
//! letters of a key are replayed or discarded; the consumer replays them in order, and then unparks the key. The crate
//! carries bytes and does not know what they mean.
//!
//! ```no_run
//! use sqlx::MySqlConnection;
//! use stampede_inbox::{Boxed, HandleError, Handler, Message};
//!
//! struct Count;
//! impl Handler for Count {
//!     type Effects = usize;
//!     fn apply<'c>(&'c self, _: &'c mut MySqlConnection, batch: &'c [Message])
//!     -> Boxed<'c, Result<usize, HandleError>> {
//!         Box::pin(async move { Ok(batch.len()) })
//!     }
//!     fn committed(&self, count: usize) -> Boxed<'_, ()> {
//!         Box::pin(async move { println!("{count} new messages") })
//!     }
//! }
//! # use {stampede_db::Database, stampede_inbox::{Consumer, ConsumerConfig}, std::sync::Arc};
//! # async fn run(config: ConsumerConfig, db: Database) -> Result<(), rdkafka::error::KafkaError> {
//! Consumer::new(config, db, Arc::new(Count))?.run(Default::default()).await;
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod batch;
mod chain;
mod client;
mod consumer;
mod copies;
mod failure;
mod gauges;
mod headers;
mod letter;
mod letters;
mod log_throttle;
mod message;
mod positions;
mod progress;
mod recreated;
mod replay;
mod rows;
mod trace;

pub use consumer::{Consumer, ConsumerConfig, MAX_POLL_INTERVAL_MS, SESSION_TIMEOUT_MS};
pub use headers::Headers;
pub use message::{Boxed, HandleError, Handler, Message};
pub use progress::Progress;
