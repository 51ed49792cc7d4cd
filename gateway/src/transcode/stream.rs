//! Streams of a service as server-sent events, for `EventSource` of browsers and for plain readers.
//!
//! - A message is one `data:` line of JSON. Its `id:` names its content; a reader that comes back with that id
//!   (`Last-Event-ID`) and would get the same first does not get it again.
//! - `time` comes first, with `retry:`, and then whenever the stream was quiet for a while: the time of the server, to
//!   count down by.
//! - `problem` is a failure half way, as the problem+json that a unary call would have been answered with.
//! - `end` is the last event. A reader that comes back after it is answered 204, at which a browser stops.
//! - `drain` says that this gateway shuts down, or that the stream has become old: come back, and be served by another.

use super::{event::Event, rendering::Rendering};
use crate::{bounds::STREAM_LIFE, trace_id::TraceId, upstream::failure};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::json;
use stampede_vocab::Timestamp;
use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// Interval of the heartbeat on an idle stream; proxies close idle ones after 30 to 60 seconds.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Range of the reconnect delay; drawn at random, so that a crowd does not reconnect together.
const RETRY_MS: std::ops::Range<u64> = 1_000..4_000;
/// The id of the end. No message has it: theirs are hexadecimal digits.
const END_ID: &str = "end";
/// The id of the event that a reader saw last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The headers of a stream. The last one turns off response buffering in nginx and other proxies.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
];

/// Returns whether the reader reconnects although the stream has ended.
pub fn has_ended(headers: &HeaderMap) -> bool {
    headers.get(LAST_EVENT_ID).is_some_and(|id| id == END_ID)
}

/// Returns the id of the event that the reader saw last.
pub fn last_seen(headers: &HeaderMap) -> Option<String> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().map(str::to_owned)
}

/// One open stream.
pub struct Events {
    /// Names the request in a problem half way.
    pub trace_id: TraceId,
    /// The id of the event that the reader saw last, until the first message is compared with it.
    pub last_seen: Option<String>,
}

impl Events {
    /// Sends the messages as they come.
    pub fn response<S>(self, messages: S, draining: CancellationToken) -> Response
    where
        S: Stream<Item = Result<Arc<Rendering>, Status>> + Send + 'static,
    {
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let open = OpenStream {
            events: self,
            messages: messages.boxed(),
            draining: Box::pin(draining.cancelled_owned()),
            max_age: Box::pin(sleep(STREAM_LIFE.mul_f64(rand::random_range(0.9..=1.0)))),
            heartbeat,
            phase: Phase::Opening,
        };
        (HEADERS, Body::from_stream(stream::unfold(open, OpenStream::next))).into_response()
    }

    /// Returns the event of a message, unless it is what the reader saw last; or the problem that it has become.
    fn message(&mut self, message: Result<Arc<Rendering>, Status>) -> Result<Option<Bytes>, Bytes> {
        match message {
            Ok(message) => {
                // Only the first: a state that has come back is new to the reader.
                let is_known = self.last_seen.take().is_some_and(|seen| seen == message.id);
                Ok((!is_known).then(|| message.event.clone()))
            }
            Err(status) => {
                let problem = failure(&status);
                let json = problem.to_json(self.trace_id.as_str()).to_string();
                Err(Event::named("problem").into_bytes(&json))
            }
        }
    }
}

/// A stream on its way to the reader.
struct OpenStream {
    events: Events,
    messages: BoxStream<'static, Result<Arc<Rendering>, Status>>,
    /// Made once: making one takes a lock that all streams share.
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    max_age: Pin<Box<Sleep>>,
    heartbeat: Interval,
    phase: Phase,
}

enum Phase {
    Opening,
    Open,
    Over,
}

/// The next occurrence in the life of a stream.
enum StreamInput {
    Drain,
    Heartbeat,
    Message(Result<Arc<Rendering>, Status>),
    End,
}

impl OpenStream {
    /// Returns the next event, and the stream after it.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let event = match self.phase {
            Phase::Opening => {
                self.phase = Phase::Open;
                told(Event::named("time").retry(retry()))
            }
            Phase::Open => self.open().await,
            Phase::Over => return None,
        };
        Some((Ok(event), self))
    }

    async fn open(&mut self) -> Bytes {
        loop {
            let event = match self.next_input().await {
                StreamInput::Heartbeat => return told(Event::named("time")),
                StreamInput::Drain => Err(told(Event::named("drain").retry(retry()))),
                StreamInput::End => Err(told(Event::named("end").id(END_ID))),
                StreamInput::Message(message) => self.events.message(message),
            };
            match event {
                Ok(Some(event)) => {
                    self.heartbeat.reset();
                    return event;
                }
                Ok(None) => {}
                Err(last) => {
                    self.phase = Phase::Over;
                    return last;
                }
            }
        }
    }

    async fn next_input(&mut self) -> StreamInput {
        tokio::select! {
            biased;
            () = self.draining.as_mut() => StreamInput::Drain,
            () = self.max_age.as_mut() => StreamInput::Drain,
            _ = self.heartbeat.tick() => StreamInput::Heartbeat,
            message = self.messages.next() => message.map_or(StreamInput::End, StreamInput::Message),
        }
    }
}

/// Returns an event of the gateway itself, with the time. All have data, as browsers do not dispatch one without.
fn told(event: Event) -> Bytes {
    event.into_bytes(&json!({ "server_time": server_time(Timestamp::now()) }).to_string())
}

fn server_time(now: Timestamp) -> String {
    // Milliseconds are as good as the clocks of readers are.
    let (seconds, millis) = (now.micros().div_euclid(1_000_000), now.micros().rem_euclid(1_000_000) / 1_000);
    let nanos = i32::try_from(millis * 1_000_000).expect("less than a second");
    prost_types::Timestamp { seconds, nanos }.to_string()
}

fn retry() -> Duration {
    Duration::from_millis(rand::random_range(RETRY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn events() -> Events {
        Events { trace_id: TraceId::of_test(), last_seen: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_tells_the_time() {
        let started = Instant::now();
        let mut body = events().response(stream::pending(), CancellationToken::new()).into_body();
        for beats in 0..3 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(frame.starts_with(b"event: time\n"), "{frame:?}");
            assert!(started.elapsed() >= HEARTBEAT * beats, "{beats}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_stream_asks_its_reader_to_come_back() {
        let answer = events().response(stream::pending(), CancellationToken::new());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.starts_with("event: drain\n") && last.contains("\nretry: "), "{last}");
    }

    #[test]
    fn the_time_is_sent_to_the_millisecond() {
        assert_eq!(server_time(Timestamp::from_micros(1_767_225_600_123_456)), "2026-01-01T00:00:00.123Z");
    }

    #[test]
    fn who_comes_back_says_what_they_saw() {
        let mut headers = HeaderMap::new();
        assert!(!has_ended(&headers) && last_seen(&headers).is_none());
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("0123456789abcdef"));
        assert_eq!((has_ended(&headers), last_seen(&headers).as_deref()), (false, Some("0123456789abcdef")));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static(END_ID));
        assert!(has_ended(&headers));
    }
}
