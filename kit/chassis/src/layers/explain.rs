//! Adds a reason to the refusals of the gRPC library itself: a method that does not exist, a message that cannot be
//! decoded or is too large. No handler runs then, so nothing else could give a reason.
//! Must not touch an answer that has one.

use http::Response;
use stampede_status::{Problem, Reason};
use tonic::{Code, Status, body::Body};

/// How prost begins to say that bytes are no message.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Names the reason of a refusal that has none. Streams of messages that break half way are left as they are: what
/// breaks them is the handler's.
pub(crate) fn explain(answer: Response<Body>) -> Response<Body> {
    match unexplained(&answer) {
        Some(status) => Status::from(explanation(&status)).into_http(),
        None => answer,
    }
}

/// The failure that the answer begins and ends with, if it carries no details.
fn unexplained(answer: &Response<Body>) -> Option<Status> {
    let status = Status::from_header_map(answer.headers())?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

fn explanation(status: &Status) -> Problem {
    match status.code() {
        Code::Unimplemented => Problem::new(Reason::MethodNotAllowed, "there is no such method"),
        // The library calls it a failure of its own, but it is the caller who has to mend it.
        Code::Internal if status.message().starts_with(UNDECODABLE) => {
            Problem::new(Reason::MalformedMessage, "the request is not a message of this method")
        }
        Code::OutOfRange => Problem::new(Reason::BodyTooLarge, "the message is larger than is accepted"),
        // From a handler that named no reason: its text is for the log.
        _ => Problem::from_status(status),
    }
}
