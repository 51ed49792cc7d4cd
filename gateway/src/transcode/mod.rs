//! HTTP/JSON to gRPC and back, from descriptors alone: no method of the contract is named here.
//!
//! Does not authorize callers; that is done before. Knows no service and no message.

mod answer;
mod call;
mod codec;
mod decimal;
mod event;
mod header;
mod idempotency;
mod json;
mod query;
mod rendering;
mod request;
mod response;
mod stream;
mod text;
mod tree;
mod value;
mod wire;
mod writer;

pub use self::{
    answer::{is_known, name_of},
    call::{Call, Transcoder},
    codec::small_buffers,
    json::{object, read as read_json, unknown_field},
    query::refuse as refuse_query,
    request::assemble,
    response::of_bytes,
    stream::has_ended,
    writer::Writer,
};
