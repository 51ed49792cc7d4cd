//! The consumer that applies each message once.
//!
//! Kafka delivers at least once; the inbox row, the effect and the outbox rows of the answer are written in one
//! transaction, a batch at a time, and the offset is committed after. A message that can't be applied becomes a dead
//! letter, and later messages of its key are parked behind it. A record without the headers of a message becomes one as
//! it is, named by its partition and offset. It carries bytes and does not know what they mean.

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
