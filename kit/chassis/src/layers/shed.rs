//! A bound on the calls under way. What is over it is refused at once: a queue would only make all
//! of them late.

use std::sync::Arc;

use http::{Request, Response};
use stampede_status::{Problem, Reason};
use tokio::sync::Semaphore;
use tonic::{Status, body::Body};

use super::{Middleware, is_probe};

/// Refuses calls over a bound. A call counts until its answer begins, so an open stream does not.
#[derive(Clone)]
pub(crate) struct Shed {
    places: Arc<Semaphore>,
}

impl Shed {
    /// At most `calls` under way.
    pub(crate) fn over(calls: usize) -> Shed {
        Shed { places: Arc::new(Semaphore::new(calls)) }
    }
}

impl Middleware for Shed {
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let place = self.places.clone().try_acquire_owned().ok();
        let admitted = (place.is_some() || is_probe(&request)).then(|| next(request));
        async move {
            let _place = place;
            match admitted {
                Some(answer) => answer.await,
                None => overloaded().into_http(),
            }
        }
    }
}

fn overloaded() -> Status {
    Problem::new(Reason::Overloaded, "too many calls are under way").into()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tonic::Code;

    use super::*;
    use crate::layers::code_in;

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_call_over_the_bound_is_refused_and_a_probe_is_not() {
        let shed = Shed::over(1);
        let under_way = shed.handle(request("/a.B/C"), |_| std::future::pending());
        let answer = |_| async { Response::new(Body::empty()) };
        let refused = shed.handle(request("/a.B/C"), answer).now_or_never().unwrap();
        assert_eq!(code_in(refused.headers()), Some(Code::Unavailable));
        let probed = shed.handle(request("/grpc.health.v1.Health/Check"), answer).now_or_never().unwrap();
        assert_eq!(code_in(probed.headers()), None);
        drop(under_way);
        let admitted = shed.handle(request("/a.B/C"), answer).now_or_never().unwrap();
        assert_eq!(code_in(admitted.headers()), None);
    }
}
