//! The service as others call it: [`server`] is thin, [`convert`] knows both the contract and the domain, and
//! [`problem`] gives each failure its reason.

mod convert;
mod outcomes;
mod problem;
mod server;

pub use outcomes::Outcomes;
pub use server::InventoryRpc;
