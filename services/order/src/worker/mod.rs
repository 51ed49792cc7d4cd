//! Background workers. A worker decides nothing: it passes what it finds to a use case.

mod consumer;
mod gauges;

pub use consumer::Consumer;
pub use gauges::Gauges;
