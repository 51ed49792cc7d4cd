//! A handler that panics answers INTERNAL; without this its caller would see a broken stream.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::{Request, Response};
use stampede_status::Problem;
use tonic::{Status, body::Body};

use super::Middleware;

/// Turns a panic into an answer. The panic itself is logged by the hook of the process.
#[derive(Clone)]
pub(crate) struct CatchPanic;

impl Middleware for CatchPanic {
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        // The handler's state is dropped with it, so nobody can see it half changed.
        let answer = AssertUnwindSafe(next(request)).catch_unwind();
        answer.map(|outcome| {
            outcome.unwrap_or_else(|_| Status::from(Problem::internal_error("the handler panicked")).into_http())
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::layers::code_in;

    #[tokio::test]
    async fn a_panic_is_internal() {
        let answer = CatchPanic.handle(Request::new(Body::empty()), |_| async { panic!("a bug") }).await;
        assert_eq!(code_in(answer.headers()), Some(Code::Internal));
    }
}
