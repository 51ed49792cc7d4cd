//! Detects stalled readers of HTTP/2 streams: each stream is a task, which ends when its answer makes no progress.
//!
//! The socket detects a connection that reads nothing at all. One that reads, but gives a stream no flow-control
//! window, is detected only here: the body waits for the window, and nothing else would wake its task.

use super::{
    bounds::CHUNK_BYTES,
    life::Exchange,
    metrics::{Metrics, Unread},
};
use axum::body::Body;
use bytes::Bytes;
use hyper::{
    body::{Body as HttpBody, Frame, SizeHint},
    rt::Executor,
};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// Whether a body waits for its reader.
#[derive(Default)]
struct Progress {
    /// When the body last returned a frame, unless it was polled again since.
    given: Mutex<Option<Instant>>,
}

impl Progress {
    fn given(&self) -> MutexGuard<'_, Option<Instant>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns the streams of HTTP/2 connections.
#[derive(Clone)]
pub(super) struct StreamTasks {
    pub(super) stall_deadline: Duration,
    pub(super) metrics: Metrics,
}

impl<F> Executor<F> for StreamTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let StreamTasks { stall_deadline, metrics } = self.clone();
        tokio::spawn(async move {
            // Dropping a stream resets it.
            if until_stalled(stream, stall_deadline, &metrics).await.is_none() {
                metrics.count_cut("stalled");
            }
        });
    }
}

/// Runs a stream to its end; `None` if its reader stalled.
async fn until_stalled<F: Future>(stream: F, deadline: Duration, metrics: &Metrics) -> Option<F::Output> {
    let progress = Arc::new(Progress::default());
    let mut stream = pin!(PROGRESS.scope(Arc::clone(&progress), stream));
    let mut wait: Option<(Pin<Box<Sleep>>, Unread)> = None;
    poll_fn(move |cx| {
        if let Poll::Ready(output) = stream.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(given) = *progress.given() else {
            wait = None;
            return Poll::Pending;
        };
        let late = given + deadline;
        let (timer, _) = wait.get_or_insert_with(|| (Box::pin(sleep_until(late)), metrics.wait_for_reader()));
        if timer.deadline() != late {
            timer.as_mut().reset(late);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// A body that is returned in small chunks, so that its end is polled only when nearly all of it is written.
pub(super) struct Watched {
    inner: Body,
    /// Remainder of the last frame.
    rest: Bytes,
    /// `None` over HTTP/1, where the socket detects a stall.
    progress: Option<Arc<Progress>>,
    _exchange: Exchange,
}

impl Watched {
    pub(super) fn new(inner: Body, exchange: Exchange) -> Watched {
        let progress = PROGRESS.try_with(Arc::clone).ok();
        Watched { inner, rest: Bytes::new(), progress, _exchange: exchange }
    }

    fn note(&self, given: Option<Instant>) {
        if let Some(progress) = &self.progress {
            *progress.given() = given;
        }
    }

    /// Returns the first chunk of a data frame, and keeps the rest.
    fn part(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let part = data.split_to(data.len().min(CHUNK_BYTES));
        self.rest = data;
        Frame::data(part)
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.note(Some(Instant::now()));
            return Poll::Ready(Some(Ok(self.part(rest))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            self.note(None);
            return Poll::Pending;
        };
        self.note(Some(Instant::now()));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => self.part(data),
                Err(trailers) => trailers,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http::life::Life;
    use http_body_util::BodyExt;

    fn watched(body: Body) -> Watched {
        Watched::new(body, Life::begin().begin_request(true))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_reader_takes_nothing_ends() {
        let started = Instant::now();
        let stands_still = async {
            let mut body = watched(Body::from("answer"));
            body.frame().await.unwrap().unwrap();
            std::future::pending::<()>().await;
        };
        assert_eq!(until_stalled(stands_still, Duration::from_secs(15), &Metrics::of_http("test")).await, None);
        assert_eq!(started.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_has_nothing_to_send_goes_on() {
        let quiet = async {
            let mut body = watched(Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>()));
            let silence = tokio::time::timeout(Duration::from_secs(100), body.frame()).await;
            assert!(silence.is_err());
        };
        assert_eq!(until_stalled(quiet, Duration::from_secs(15), &Metrics::of_http("test")).await, Some(()));
    }

    #[tokio::test]
    async fn a_large_answer_is_given_in_parts_and_its_length_is_known() {
        let whole = Bytes::from(vec![7_u8; CHUNK_BYTES * 2 + 1]);
        let mut body = watched(Body::from(whole.clone()));
        let mut lengths = Vec::new();
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        while !body.is_end_stream() {
            lengths.push(body.frame().await.unwrap().unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [CHUNK_BYTES, CHUNK_BYTES, 1]);
    }
}
