//! What runs beside the calls. A worker decides nothing: it hands what it finds to a use case.

mod consumer;

pub use consumer::Consumer;
