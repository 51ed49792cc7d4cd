//! Messages written in the transaction that changes the state, and the relay that sends them to Kafka.
//!
//! [`append`] writes rows inside the caller's transaction; [`Relay`] sends what is unsent, in the order of each
//! aggregate, at least once. It carries bytes and does not know what they mean. The columns are those of Debezium's
//! outbox event router, so a user can put Debezium in the relay's place.
//!
//! ```no_run
//! use stampede_db::{Database, DbError};
//! use stampede_outbox::{Outbox, OutboxMessage, append};
//!
//! async fn publish(db: &Database, outbox: &Outbox, message: OutboxMessage) -> Result<(), DbError> {
//!     db.transact("publish", move |conn| {
//!         let message = message.clone();
//!         // After the rows that the message is about.
//!         Box::pin(async move { append(conn, &[message]).await })
//!     })
//!     .await?;
//!     outbox.wake();
//!     Ok(())
//! }
//! ```

#![warn(missing_docs)]

mod append;
mod backlog;
mod headers;
mod lease;
mod relay;
mod rows;
mod send;
mod trace;

pub use append::{OutboxMessage, append, push_append};
pub use relay::{Outbox, Relay, RelayConfig};
pub use trace::current_traceparent;

/// How many partitions an outbox has: the most relays that can share it.
pub const PARTITIONS: u16 = 16;
