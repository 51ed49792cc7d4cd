//! Streams of a service as server-sent events: one `data:` line of JSON for each message.
//!
//! A failure half way is sent as an event of type `error` with the same problem+json that a unary call would have been
//! answered with; then the stream ends. A gateway that is about to leave ends its streams after the message at hand.

use super::response;
use crate::{routes::Rpc, trace_id::TraceId};
use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::{Stream, StreamExt, future::ready};
use http::{HeaderName, HeaderValue};
use prost_reflect::DynamicMessage;
use stampede_status::Problem;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Interval of keep-alive comments on a quiet stream; proxies cut off at 30 to 60 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Turns off response buffering in nginx and other proxies.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// One open stream.
pub struct Events {
    /// How its method is bound.
    pub rpc: Arc<Rpc>,
    /// Names the request in a problem half way.
    pub trace_id: TraceId,
    /// Its place among the streams that may be open, held for as long as it is.
    pub _permit: OwnedSemaphorePermit,
}

impl Events {
    /// Sends the messages as they come.
    pub fn response<S>(self, messages: S, draining: CancellationToken) -> Response
    where
        S: Stream<Item = Result<DynamicMessage, Status>> + Send + 'static,
    {
        let events = messages
            .map(move |message| self.event(message))
            .scan(false, |failed, event| ready(event.unless_after(failed)))
            .take_until(draining.cancelled_owned());
        ([NO_BUFFERING], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
    }

    fn event(&self, message: Result<DynamicMessage, Status>) -> Outcome {
        let json = message
            .map_err(|status| Problem::from_status(&status))
            .and_then(|message| response::to_json(&self.rpc, &message));
        match json {
            Ok(json) => Outcome::Message(Event::default().data(String::from_utf8_lossy(&json))),
            Err(problem) => {
                let json = problem.to_json(self.trace_id.as_str()).to_string();
                Outcome::Failure(Event::default().event("error").data(json))
            }
        }
    }
}

enum Outcome {
    Message(Event),
    Failure(Event),
}

impl Outcome {
    /// The event, or the end of the stream if the one before was a failure.
    fn unless_after(self, failed: &mut bool) -> Option<Result<Event, Infallible>> {
        if *failed {
            return None;
        }
        Some(Ok(match self {
            Self::Message(event) => event,
            Self::Failure(event) => {
                *failed = true;
                event
            }
        }))
    }
}
