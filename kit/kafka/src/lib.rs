//! The side of Kafka that a service writes to: one producer under one configuration, and whether Kafka is there. It
//! carries bytes and does not know what they mean.

#![warn(missing_docs)]

mod producer;
mod reach;

pub use producer::{Delivery, Producer, Record, Undelivered};
pub use reach::{KafkaUnreachable, reach_kafka};
