//! Background workers. A worker decides nothing: it calls a use case.

mod consumer;
mod orphan_holds;
mod staging;

pub use consumer::Consumer;
pub use orphan_holds::OrphanHolds;
pub use staging::Staging;
