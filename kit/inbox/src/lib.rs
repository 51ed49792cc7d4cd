//! The consumer that applies each message once.
//!
//! Kafka delivers at least once; the inbox row, the effect and the outbox rows of the answer are written in one
//! transaction, a batch at a time, and the offset is committed after. A message that can't be applied becomes a dead
//! letter, and later messages of its key are parked behind it. A record without the headers of a message becomes one as
//! it is, named by its partition and offset. It carries bytes and does not know what they mean.
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
mod consumer;
mod dead_letter;
mod gauges;
mod message;
mod purge;
mod rows;
mod trace;

pub use consumer::{Consumer, ConsumerConfig};
pub use message::{Boxed, HandleError, Handler, Message};
