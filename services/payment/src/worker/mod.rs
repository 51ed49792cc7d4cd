//! Background workers: the consumer of the order service's messages, three pools that process queues in the database,
//! and gauges. A worker decides nothing: it calls a use case.

mod consumer;
mod gauges;
mod pool;
mod queues;

pub use consumer::Consumer;
pub use gauges::Gauges;
pub use pool::{PoolConfig, Queue, run};
