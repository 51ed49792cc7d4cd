//! Ends streams when the process leaves: a stream with nothing to send is told UNAVAILABLE, so that
//! its caller goes to another replica. Without this, one watcher would hold up every stop.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use stampede_status::{Problem, Reason};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use super::Middleware;

/// Ends the bodies of answers that wait for more, once the token is cancelled.
#[derive(Clone)]
pub(crate) struct EndStreams {
    draining: CancellationToken,
}

impl EndStreams {
    /// Ends streams when `draining` is cancelled.
    pub(crate) fn when(draining: CancellationToken) -> EndStreams {
        EndStreams { draining }
    }
}

impl Middleware for EndStreams {
    fn handle<N, F>(&self, request: Request<Body>, next: N) -> impl Future<Output = Response<Body>> + Send + 'static
    where
        N: FnOnce(Request<Body>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let draining = self.draining.clone();
        let answer = next(request);
        async move { answer.await.map(|inner| Body::new(Draining { inner, draining, waiting: None, ended: false })) }
    }
}

struct Draining {
    inner: Body,
    draining: CancellationToken,
    /// Made when the body first has to wait. That of a single answer never does.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl HttpBody for Draining {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(this.draining.clone().cancelled_owned()));
        ready!(waiting.as_mut().poll(cx));
        this.ended = true;
        Poll::Ready(Some(going_away().map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn going_away() -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    Status::from(Problem::new(Reason::Unavailable, "the service is leaving")).add_header(&mut trailers)?;
    Ok(trailers)
}
