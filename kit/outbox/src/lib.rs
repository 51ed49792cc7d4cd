//! Messages written in the transaction that changes the state, and the relay that sends them to Kafka.
//!
//! [`append`] writes rows inside the caller's transaction; [`Relay`] sends them, in the order of each aggregate, at
//! least once. It carries bytes and does not know what they mean. The columns are those of Debezium's outbox event
//! router.
//!
//! A row is written once and not touched again until it is purged. What has been sent is known by the floor of each of
//! the 16 partitions, in the row of its lease: everything at or below it. A message is unsent for sure only if its id
//! is above the `floor_id` of its partition; floors are written about once a second.
//!
//! A relay reads by a cursor over the ids. They are given at the insert and become visible at the commit, so a row may
//! come below the cursor: the relay remembers which ids are missing there, and looks for them until they come, or until
//! it is certain that none will ([`Relay`] holds the floors below them so long). Whoever takes a partition over begins
//! at its floor, and sends again what the one before had sent above it; consumers must not care.
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
mod desk;
mod flow;
mod gaps;
mod headers;
mod keeper;
mod lease;
mod meters;
mod purge;
mod reading;
mod relay;
mod rows;
mod send;
mod sending;
mod session;
mod trace;

pub use append::{OutboxMessage, append, push_append};
pub use relay::{Outbox, Relay, RelayConfig};
pub use trace::current_traceparent;

/// How many partitions an outbox has: the most relays that can share it.
pub const PARTITIONS: u16 = 16;
