//! HTTP/JSON to gRPC and back, from descriptors alone: no method of the contract is named here.
//!
//! Decides nothing about who may call; that is done before. Knows no service and no message.

mod call;
mod codec;
mod fault;
mod json;
mod query;
mod request;
mod response;
mod stream;
mod text;

pub use self::{
    call::{Call, CallLimits, Transcoder, Upstreams},
    json::{malformed, unknown_field},
    query::refuse as refuse_query,
};
