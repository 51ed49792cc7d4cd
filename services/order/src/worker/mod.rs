//! What runs beside the calls. A worker decides nothing: it hands what it finds to a use case.

mod consumer;
mod gauges;

pub use consumer::Consumer;
pub use gauges::Gauges;
