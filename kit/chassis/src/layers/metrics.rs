//! Measures the duration and outcome of calls, by method, code and reason. A stream lasts until its last message.

use super::code_in;
use crate::telemetry::duration_histogram;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use opentelemetry::{KeyValue, metrics::Histogram};
use stampede_status::Problem;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

/// The histogram of all calls.
pub(crate) fn duration() -> Histogram<f64> {
    duration_histogram("rpc.server.call.duration", "Time from the first byte of a call to the end of its answer.")
}

/// A call under way, recorded when dropped. Without a code then, its caller went away.
pub(crate) struct Call {
    uri: Uri,
    started: Instant,
    code: Code,
    /// Reason of the failure in the error table; empty without one.
    reason: &'static str,
    duration: Histogram<f64>,
}

impl Call {
    /// Starts to measure a call.
    pub(crate) fn begin(request: &Request<Body>, duration: &Histogram<f64>) -> Call {
        let (uri, duration) = (request.uri().clone(), duration.clone());
        Call { uri, started: Instant::now(), code: Code::Cancelled, reason: "", duration }
    }

    fn ended_with(&mut self, code: Code, headers: &HeaderMap) {
        self.code = code;
        if code != Code::Ok {
            self.reason = Status::from_header_map(headers).map_or("", |status| reason_of(&status));
        }
    }

    /// Measures until the end of the answer. Without a code in its headers, that is in the trailers.
    pub(crate) fn follow<B>(mut self, response: Response<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error = Status> + Unpin + Send + 'static,
    {
        match code_in(response.headers()) {
            Some(code) => {
                self.ended_with(code, response.headers());
                response.map(Body::new)
            }
            None => response.map(|inner| Body::new(Followed { inner, call: self })),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Callers can invent methods, and each would become a time series.
        let method = match self.code {
            Code::Unimplemented => "unknown",
            _ => self.uri.path().trim_start_matches('/'),
        };
        let labels = [
            KeyValue::new("rpc_method", method.to_owned()),
            KeyValue::new("rpc_response_status_code", code_name(self.code)),
            KeyValue::new("error_type", self.reason),
        ];
        // An empty label equals a missing one.
        let labels = if self.reason.is_empty() { &labels[..2] } else { &labels[..] };
        self.duration.record(self.started.elapsed().as_secs_f64(), labels);
    }
}

/// A body that is watched for the code in its trailers.
struct Followed<B> {
    inner: B,
    call: Call,
}

impl<B> HttpBody for Followed<B>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some((code, trailers)) = frame.trailers_ref().and_then(|all| Some((code_in(all)?, all))) {
                    self.call.ended_with(code, trailers);
                }
            }
            Some(Err(status)) => {
                self.call.code = status.code();
                self.call.reason = reason_of(status);
            }
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reasons are a closed list, which bounds the time series of each method.
fn reason_of(status: &Status) -> &'static str {
    Problem::from_status(status).reason().as_str()
}

/// The names of the protocol, as metrics and other languages spell them.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
