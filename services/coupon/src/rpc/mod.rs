//! The gRPC API of the service: thin handlers, and the one place where proto and domain meet.

mod convert;
mod server;

pub use server::CouponRpc;
