//! The service as others call it: [`server`] is thin, [`convert`] knows both the contract and the domain, and
//! [`problem`] gives each failure its reason.

mod convert;
mod problem;
mod server;

pub use server::PaymentRpc;
