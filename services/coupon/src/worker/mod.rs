//! What runs beside the calls: each worker says when, and a usecase does it.

mod consumer;
mod orphan_holds;
mod settle;
mod staging;
mod unfinished_claims;

pub use consumer::OrderHandler;
pub use orphan_holds::OrphanHolds;
pub use settle::settle;
pub use staging::Staging;
pub use unfinished_claims::UnfinishedClaims;
