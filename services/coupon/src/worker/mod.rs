//! Background workers. A worker decides nothing: it calls a use case.

mod consumer;
mod staging;
mod unwritten_holds;

pub use consumer::Consumer;
pub use staging::Staging;
pub use unwritten_holds::UnwrittenHolds;
