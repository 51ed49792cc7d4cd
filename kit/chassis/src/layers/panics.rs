//! Turns a panic of a handler into an internal error; its caller would otherwise see a broken stream.

use futures_util::FutureExt;
use stampede_status::Problem;
use std::panic::AssertUnwindSafe;

/// Runs a handler. Fails with INTERNAL if it panics. The panic hook of the process logs it.
pub fn catch_panic<F: Future>(handler: F) -> impl Future<Output = Result<F::Output, Problem>> {
    // The handler's state is dropped with it, so no broken invariant can be seen.
    let outcome = AssertUnwindSafe(handler).catch_unwind();
    outcome.map(|outcome| outcome.map_err(|_| Problem::internal_error("the handler panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_status::Reason;

    async fn handler() {
        panic!("a bug");
    }

    #[tokio::test]
    async fn a_panic_is_internal() {
        assert_eq!(catch_panic(handler()).await.unwrap_err().reason(), Reason::Internal);
    }
}
