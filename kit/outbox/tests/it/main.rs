//! The relay against the real database and the real Kafka: nothing lost, nothing out of order, with replicas and
//! crashes.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod bench;
mod delayed_links;
mod fresh;
mod frozen_kafka;
mod idle;
mod order;
mod relay;
mod rows;
