//! Streams of a service as streams of gRPC and gRPC-Web.
//!
//! A stream ends with that of the service, or with a status: the session of its caller is over, the caller's deadline
//! has passed, the stream has reached its maximum age, or this gateway drains. The last two are UNAVAILABLE, so that
//! the client reconnects to another gateway.

use super::{respond, wire::Wire};
use crate::{bounds::STREAM_LIFE, upstream::failure};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http_body_util::StreamBody;
use hyper::body::Frame;
use stampede_chassis::Deadline;
use stampede_status::{Problem, Reason};
use std::{convert::Infallible, future::pending, ops::Range, time::Duration};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Range of the reconnect delay; drawn at random, so that a crowd does not reconnect together.
const RETRY_MS: Range<u64> = 1_000..4_000;

/// Returns the answer that has these messages.
pub fn response<S>(wire: Wire, messages: S) -> Response
where
    S: Stream<Item = Result<Bytes, Status>> + Send + 'static,
{
    let frames = stream::unfold(Some(messages.boxed()), move |messages| next(wire, messages));
    respond::with_body(wire, Body::new(StreamBody::new(frames)))
}

type Messages = BoxStream<'static, Result<Bytes, Status>>;

/// Returns the next frame, and the messages behind it; `None` after the end.
async fn next(wire: Wire, messages: Option<Messages>) -> Option<(Result<Frame<Bytes>, Infallible>, Option<Messages>)> {
    let mut messages = messages?;
    let frame = match messages.next().await {
        Some(Ok(message)) => return Some((Ok(respond::next(wire, &message)), Some(messages))),
        Some(Err(status)) => respond::end(wire, Some(&Status::from(failure(&status)))),
        None => respond::end(wire, None),
    };
    Some((Ok(frame), None))
}

/// Waits until a stream that began now has to end, whatever the service sends. Returns the reason.
pub fn lapse(draining: CancellationToken, theirs: Option<Deadline>) -> BoxFuture<'static, Problem> {
    let life = STREAM_LIFE.mul_f64(rand::random_range(0.9..=1.0));
    let late = async move {
        match theirs {
            Some(deadline) => sleep_until(deadline.instant()).await,
            None => pending().await,
        }
    };
    Box::pin(async move {
        tokio::select! {
            biased;
            () = draining.cancelled_owned() => again("the gateway is leaving: open the stream again"),
            () = late => Deadline::exceeded(),
            () = sleep(life) => again("the stream has become old: open it again"),
        }
    })
}

fn again(detail: &str) -> Problem {
    let retry = Duration::from_millis(rand::random_range(RETRY_MS));
    Problem::new(Reason::Unavailable, detail).retry_after(retry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UntilEnd;
    use http_body_util::BodyExt;

    /// Returns the status in the trailers of a stream of nothing.
    async fn end(draining: &CancellationToken, theirs: Option<Deadline>) -> Status {
        let messages = UntilEnd::new(stream::pending(), lapse(draining.clone(), theirs));
        let body = response(Wire::Grpc, messages).into_body().collect().await.unwrap();
        Status::from_header_map(body.trailers().unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_it_is_old_or_its_caller_waits_no_longer_or_the_gateway_leaves() {
        let draining = CancellationToken::new();
        assert_eq!(end(&draining, None).await.code(), tonic::Code::Unavailable);
        let waits = Some(Deadline::after(Duration::from_secs(1)));
        assert_eq!(end(&draining, waits).await.code(), tonic::Code::DeadlineExceeded);
        draining.cancel();
        let longest = Duration::from_millis(RETRY_MS.end);
        for _ in 0..20 {
            let left = Problem::from_status(&end(&draining, None).await);
            assert!(left.detail().contains("leaving"), "{left}");
            assert!(left.retry_delay().is_some_and(|wait| wait <= longest), "{:?}", left.retry_delay());
        }
    }

    #[tokio::test]
    async fn what_fails_half_way_ends_with_its_status_and_keeps_its_internals() {
        let broken = Status::from(Problem::new(Reason::Unavailable, "the ledger is not available"));
        for (failed, expected) in [(broken, Reason::Unavailable), (Status::internal("a secret"), Reason::Internal)] {
            let messages = stream::iter([Ok(Bytes::from_static(b"m")), Err(failed)]);
            let body = response(Wire::Grpc, messages).into_body().collect().await.unwrap();
            let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
            assert_eq!(Problem::from_status(&status).reason(), expected);
            assert!(!status.message().contains("secret"), "{status}");
            assert_eq!(body.to_bytes(), &b"\0\0\0\0\x01m"[..]);
        }
    }
}
