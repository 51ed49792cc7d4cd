//! What runs by itself: the consumer of the order service's messages, and three pools that work off queues in the
//! database. Each calls a usecase and decides nothing.

mod consumer;
mod gauges;
mod pool;
mod queues;

pub use consumer::Orders;
pub use gauges::measure;
pub use pool::{Pace, run};
pub use queues::{Charges, Refunds, Unknowns};
