//! The service's gRPC face: thin, with all knowledge of the contract in `convert`.

mod convert;
mod server;

pub use server::EventApi;
