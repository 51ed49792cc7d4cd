//! Adds a reason to errors of the gRPC library itself: an unknown method, a message that cannot be decoded or is too
//! large. No handler runs then that could give one. Leaves answers with a reason alone.

use http::Response;
use stampede_status::{Problem, Reason};
use tonic::{Code, Status, body::Body};

/// Prefix of prost's message for bytes that cannot be decoded.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Adds a reason to an error without one. Streams that fail half way are left alone: they fail in the handler.
pub(crate) fn explain(answer: Response<Body>) -> Response<Body> {
    match unexplained(&answer) {
        Some(status) => Status::from(explanation(&status)).into_http(),
        None => answer,
    }
}

/// Returns the status of a trailers-only answer without details.
fn unexplained(answer: &Response<Body>) -> Option<Status> {
    let status = Status::from_header_map(answer.headers())?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

fn explanation(status: &Status) -> Problem {
    match status.code() {
        Code::Unimplemented => Problem::new(Reason::MethodNotAllowed, "there is no such method"),
        // The library reports an internal error, but the fault is the caller's.
        Code::Internal if status.message().starts_with(UNDECODABLE) => {
            Problem::new(Reason::MalformedMessage, "the request is not a message of this method")
        }
        Code::OutOfRange => Problem::new(Reason::BodyTooLarge, "the message is larger than is accepted"),
        // From a handler that gave no reason: its text is for the log.
        _ => Problem::from_status(status),
    }
}
