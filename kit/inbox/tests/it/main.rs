//! The consumer against the real database and the real Kafka.

mod bench;
mod consumer;
mod contention;
mod letters;
mod waits;
