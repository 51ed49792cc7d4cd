//! The consumer that applies messages, and what becomes of those that cannot be applied.
//!
//! Kafka delivers at least once: the effect and the outbox rows of the answer are written in one transaction, a batch at
//! a time, and the offset is committed after. Any message may come again at any later time, so that handlers decide by
//! the state of what they change ([`Handler::apply`]).
//!
//! While the server is at fault, whatever it says, the consumer waits. A message that is at fault itself is found by
//! halving its batch, and becomes a dead letter: a row of the service's schema, written with the park of its key, behind
//! which later messages of the key are set aside too. A record that is no message becomes one as it is. An operator lets
//! the letters of a key be replayed or discarded; the consumer replays them in their order and then goes on with the key.
//! It carries bytes and does not know what they mean.
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
mod loud;
mod message;
mod positions;
mod progress;
mod remade;
mod replay;
mod rows;
mod trace;

pub use consumer::{Consumer, ConsumerConfig, MAX_POLL_INTERVAL_MS, SESSION_TIMEOUT_MS};
pub use headers::Headers;
pub use message::{Boxed, HandleError, Handler, Message};
pub use progress::Progress;
