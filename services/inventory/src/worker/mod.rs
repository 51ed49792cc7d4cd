//! Background workers. A worker decides nothing: it calls a use case.

mod consumer;
mod gauges;
mod unwritten_orders;

pub use consumer::Consumer;
pub use gauges::Gauges;
pub use unwritten_orders::UnwrittenOrders;
