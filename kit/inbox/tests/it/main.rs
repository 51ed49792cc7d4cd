//! The consumer against the real database and the real Kafka.

mod bench;
mod consumer;
mod letters;
mod two;
mod waits;
