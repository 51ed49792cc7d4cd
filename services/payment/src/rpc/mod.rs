//! The gRPC API: [`server`] is thin, [`convert`] knows both the contract and the domain, and [`problem`] maps each
//! error to its reason.

mod convert;
mod problem;
mod server;

pub use server::PaymentRpc;
