//! A body that holds a guard until it is written.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Holds `what` until the body of the answer is written or dropped.
pub fn keep<T: Send + Unpin + 'static>(answer: Response, what: T) -> Response {
    answer.map(|inner| Body::new(Keeping { inner, _what: what }))
}

struct Keeping<T> {
    inner: Body,
    _what: T,
}

impl<T: Unpin> HttpBody for Keeping<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_is_kept_goes_with_the_body() {
        let kept = Arc::new(());
        let answer = keep(Response::new(Body::from("answer")), Arc::clone(&kept));
        assert_eq!(HttpBody::size_hint(answer.body()).exact(), Some(6));
        let mut body = answer.into_body();
        body.frame().await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
