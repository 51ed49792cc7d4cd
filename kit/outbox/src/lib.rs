//! The transactional outbox: messages written in the transaction that changes the state, and the relay that publishes
//! them to Kafka.
//!
//! [`append`] writes rows inside the caller's transaction; [`Relay`] publishes them at least once, in the order of each
//! aggregate. The crate carries bytes and does not know what they mean. The columns are those of Debezium's outbox
//! event router.
//!
//! A row is written once and not updated until it is purged. Each of the 16 partitions has a floor (low-water mark) in
//! the row of its lease: everything at or below it has been sent. Floors are written about once a second, so a message
//! above the `floor_id` of its partition may have been sent too.
//!
//! A relay reads by a cursor over the ids. Ids are assigned at the insert and visible at the commit, so a row may
//! appear below the cursor. The relay remembers the missing ids (gaps), and reads them again until their rows appear,
//! or until it is certain that they never will; until then the floors stay below them. A new holder of a partition
//! starts at its floor, and sends again what the holder before had sent above it: consumers must be idempotent.
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
mod shared;
mod trace;

pub use append::{OutboxMessage, append, push_append};
pub use relay::{Outbox, Relay, RelayConfig};
pub use trace::current_traceparent;

/// Partitions of an outbox, and so the most relays that can share it.
pub const PARTITIONS: u16 = 16;
