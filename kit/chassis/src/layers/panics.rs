//! A handler that panics is an internal error; without this its caller would see a broken stream.

use futures_util::FutureExt;
use stampede_status::Problem;
use std::panic::AssertUnwindSafe;

/// Runs a handler, and fails with INTERNAL if it panics. The panic itself is logged by the hook of the process.
pub fn catch_panic<F: Future>(handler: F) -> impl Future<Output = Result<F::Output, Problem>> {
    // The handler's state is dropped with it, so nobody can see it half changed.
    let outcome = AssertUnwindSafe(handler).catch_unwind();
    outcome.map(|outcome| outcome.map_err(|_| Problem::internal_error("the handler panicked")))
}

#[cfg(test)]
mod tests {
    use stampede_status::Reason;

    use super::*;

    async fn handler() {
        panic!("a bug");
    }

    #[tokio::test]
    async fn a_panic_is_internal() {
        assert_eq!(catch_panic(handler()).await.unwrap_err().reason(), Reason::Internal);
    }
}
