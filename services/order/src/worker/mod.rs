//! Background workers. A worker decides nothing: it calls a use case.

mod consumer;
mod gauges;

pub use consumer::Consumer;
pub use gauges::Gauges;
