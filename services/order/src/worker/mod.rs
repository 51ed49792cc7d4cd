//! Background workers. A worker decides nothing: it passes its input to a use case.

mod consumer;
mod gauges;

pub use consumer::Consumer;
pub use gauges::Gauges;
