//! Ends streams when the process drains: an idle stream ends with UNAVAILABLE, so that its caller reconnects to another
//! replica. Otherwise one watcher would delay every stop.

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use stampede_status::{Problem, Reason};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

/// A body that ends when it is idle while the process drains.
pub(crate) struct Draining {
    inner: Body,
    /// Shared, because to clone the token itself takes a lock that all calls contend for.
    draining: Arc<CancellationToken>,
    /// Made when the body is first pending, which that of a unary call never is.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl Draining {
    /// Ends `inner` once `draining` is cancelled.
    pub(crate) fn new(inner: Body, draining: Arc<CancellationToken>) -> Draining {
        Draining { inner, draining, waiting: None, ended: false }
    }
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
        let waiting =
            this.waiting.get_or_insert_with(|| Box::pin(CancellationToken::clone(&this.draining).cancelled_owned()));
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
