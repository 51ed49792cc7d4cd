//! Answers as each protocol writes them: a message and that all went well, or a status.

use super::{connect, encoding, frame, wire::Wire};
use crate::problem::spread;
use axum::{body::Body, response::Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use stampede_status::Problem;
use std::convert::Infallible;
use tonic::Status;

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The status of a failure whose text cannot be written: INTERNAL.
const INTERNAL: HeaderValue = HeaderValue::from_static("13");

/// Returns the answer to a call that succeeded.
pub fn message(wire: Wire, message: Bytes) -> Response {
    let body = match wire {
        Wire::Grpc => {
            let frames = [Frame::data(frame::of_message(&message)), Frame::trailers(trailers(None))];
            Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))))
        }
        Wire::Web => Body::from(whole(&message)),
        Wire::WebText => Body::from(frame::to_text(&whole(&message))),
        Wire::ConnectProto | Wire::ConnectJson => Body::from(message),
    };
    with_body(wire, body)
}

/// Returns a message and its trailers in gRPC-Web.
fn whole(message: &[u8]) -> Bytes {
    let (message, end) = (frame::of_message(message), frame::of_trailers(&trailers(None)));
    let mut whole = BytesMut::with_capacity(message.len() + end.len());
    whole.extend_from_slice(&message);
    whole.extend_from_slice(&end);
    whole.freeze()
}

/// Returns the answer to a failed call. Logs the internal detail of the problem.
pub fn refuse(wire: Wire, problem: Problem) -> Response {
    let status = Status::from(spread(problem));
    match wire {
        Wire::Grpc => {
            // Trailers-only: the status is in the head, as there is no message.
            let mut response = with_body(wire, Body::empty());
            response.headers_mut().extend(trailers(Some(&status)));
            response
        }
        // In the body: a page of another origin reads that, and of the head only some headers.
        Wire::Web | Wire::WebText => with_body(wire, Body::from(last(wire, Some(&status)))),
        Wire::ConnectProto | Wire::ConnectJson => connect::refuse(&status),
    }
}

/// Returns an answer with this body, which has the status in it.
pub fn with_body(wire: Wire, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(wire.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !wire.is_connect() {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding::READ));
    }
    response
}

/// Returns the frame of a message of a stream.
pub fn next(wire: Wire, message: &[u8]) -> Frame<Bytes> {
    let frame = frame::of_message(message);
    Frame::data(if wire == Wire::WebText { frame::to_text(&frame) } else { frame })
}

/// Returns the end of a stream; with a status if it failed.
pub fn end(wire: Wire, failed: Option<&Status>) -> Frame<Bytes> {
    match wire {
        Wire::Grpc => Frame::trailers(trailers(failed)),
        _ => Frame::data(last(wire, failed)),
    }
}

/// Returns the end of an answer in gRPC-Web.
fn last(wire: Wire, failed: Option<&Status>) -> Bytes {
    let frame = frame::of_trailers(&trailers(failed));
    if wire == Wire::WebText { frame::to_text(&frame) } else { frame }
}

/// Returns the trailers of an answer; those of success without a status.
pub fn trailers(failed: Option<&Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    match failed {
        None => drop(trailers.insert(STATUS, HeaderValue::from_static("0"))),
        Some(status) => {
            if status.add_header(&mut trailers).is_err() {
                trailers.insert(STATUS, INTERNAL);
            }
        }
    }
    trailers
}
