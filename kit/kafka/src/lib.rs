//! The Kafka client of writers: one producer configuration, and a check that Kafka can be reached. It carries bytes and
//! does not know their meaning.
//!
//! ```no_run
//! use rdkafka::message::OwnedHeaders;
//! use stampede_kafka::{Producer, Record, Undelivered};
//! use tokio::time::{Duration, Instant};
//!
//! async fn publish(payload: &[u8]) -> Result<(), Undelivered> {
//!     let (key, headers) = (b"ord_1".as_slice(), OwnedHeaders::new());
//!     let producer = Producer::new("localhost:9092")?;
//!     let (key, payload) = (Some(key), Some(payload));
//!     let record = Record { topic: "stampede.order", partition: None, key, payload, headers };
//!     producer.send(record)?.acknowledged(Instant::now() + Duration::from_secs(5)).await
//! }
//! ```

#![warn(missing_docs)]

mod partition;
mod producer;
mod reach;

pub use partition::partition_of;
pub use producer::{Delivery, Producer, Purging, Record, Undelivered};
pub use reach::{KafkaUnreachable, reach_kafka};
