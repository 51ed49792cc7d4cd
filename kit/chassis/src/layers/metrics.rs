//! How long calls take and how they end, by method, code and reason. A stream ends with its last message.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use stampede_status::Problem;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

use super::{Middleware, code_in, is_probe};

const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Measures each call but health probes.
#[derive(Clone)]
pub(crate) struct Measure {
    duration: Histogram<f64>,
}

impl Measure {
    /// Measures through the global meter, as it is now.
    pub(crate) fn new() -> Measure {
        let duration = global::meter("stampede")
            .f64_histogram("rpc.server.call.duration")
            .with_description("Time from the first byte of a call to the end of its answer.")
            .with_unit("s")
            .with_boundaries(SECONDS.to_vec())
            .build();
        Measure { duration }
    }
}

impl Middleware for Measure {
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let call = (!is_probe(&request)).then(|| Call::begin(&request, &self.duration));
        let answer = next(request);
        async move {
            match call {
                Some(call) => call.follow(answer.await),
                None => answer.await,
            }
        }
    }
}

/// A call under way; recorded when dropped. If nobody saw its end, the caller went away.
struct Call {
    uri: Uri,
    started: Instant,
    code: Code,
    /// Why it failed, in the words of the error table; empty if it did not.
    reason: &'static str,
    duration: Histogram<f64>,
}

impl Call {
    fn begin(request: &Request<Body>, duration: &Histogram<f64>) -> Call {
        let (uri, duration) = (request.uri().clone(), duration.clone());
        Call { uri, started: Instant::now(), code: Code::Cancelled, reason: "", duration }
    }

    fn ended_with(&mut self, code: Code, headers: &HeaderMap) {
        self.code = code;
        if code != Code::Ok {
            self.reason = Status::from_header_map(headers).map_or("", |status| reason_of(&status));
        }
    }

    /// An answer whose headers carry no code ends with its trailers.
    fn follow(mut self, response: Response<Body>) -> Response<Body> {
        match code_in(response.headers()) {
            Some(code) => {
                self.ended_with(code, response.headers());
                response
            }
            None => response.map(|inner| Body::new(Followed { inner, call: self })),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Callers can make up methods, and each would become a time series of its own.
        let method = match self.code {
            Code::Unimplemented => "unknown",
            _ => self.uri.path().trim_start_matches('/'),
        };
        let labels = [
            KeyValue::new("rpc_method", method.to_owned()),
            KeyValue::new("rpc_response_status_code", code_name(self.code)),
            KeyValue::new("error_type", self.reason),
        ];
        // A label without a value is none.
        let labels = if self.reason.is_empty() { &labels[..2] } else { &labels[..] };
        self.duration.record(self.started.elapsed().as_secs_f64(), labels);
    }
}

/// The body of an answer, watched for the code in its trailers.
struct Followed {
    inner: Body,
    call: Call,
}

impl HttpBody for Followed {
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

/// The reasons are a closed list, so they make no more than a few time series for each method.
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
