//! Holds each call to its deadline, and answers DEADLINE_EXCEEDED when it passes (tonic alone would
//! answer CANCELLED). The bound is on the time until the answer begins: a stream may go on.
//!
//! The handler is dropped at the deadline, so work that must not stop half way belongs on a task
//! of its own.

use std::time::Duration;

use http::{Request, Response};
use tonic::{Status, body::Body};

use super::Middleware;
use crate::Deadline;

/// What a caller gets who does not say how long it waits.
const DEFAULT: Duration = Duration::from_secs(10);

/// Stores the deadline with the request, and enforces it.
#[derive(Clone)]
pub(crate) struct EnforceDeadline;

impl Middleware for EnforceDeadline {
    fn handle<N, F>(&self, mut request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        // Read at once, so that it is over before tonic's own timer, which starts after this.
        let deadline = Deadline::from_headers(request.headers()).unwrap_or_else(|| Deadline::after(DEFAULT));
        request.extensions_mut().insert(deadline);
        let answer = next(request);
        async move {
            match deadline.bound(answer).await {
                Ok(response) => response,
                Err(problem) => Status::from(problem).into_http(),
            }
        }
    }
}
