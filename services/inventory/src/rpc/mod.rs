//! The gRPC API: [`server`] is thin, [`convert`] knows both the contract and the domain, and [`problem`] maps each
//! error to its reason.

mod convert;
mod outcomes;
mod problem;
mod server;

pub use outcomes::Outcomes;
pub use server::InventoryRpc;
