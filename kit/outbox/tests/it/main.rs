//! The relay against the real database and the real Kafka: nothing lost, nothing out of order, with replicas and
//! crashes.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

mod bench;
mod fresh;
mod idle;
mod order;
mod relay;
mod rows;
mod silent;
mod slow;
