//! Background workers: the consumer of the order service's messages, and three pools that process queues in the
//! database. A worker decides nothing: it calls a use case.

mod consumer;
mod pool;
mod queues;

pub use consumer::Consumer;
pub use pool::{PoolConfig, Queue, run};
