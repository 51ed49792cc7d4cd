//! Watchers that read nothing for a while, and then read on: they are given up before their connection is cut, are told
//! why, and are counted.

use crate::{
    front::{Front, request},
    grpc::{WATCH_EVENTS, call, framed},
    meters::{Count, SLOW_READERS},
    raw::{Door, MAX_WAIT},
    services,
};
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Collected};
use stampede_proto::event::v1::{WatchEventsRequest, event_service_client::EventServiceClient};
use stampede_status::{Problem, Reason};
use stampede_testkit::eventually;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Endpoint};

/// A watcher is given up after half of this, or a quarter later.
const READ_STALL: (&str, &str) = ("--read-stall-ms", "400");
/// An event whose id is the number of its stream.
const COUNT: &str = "/v1/events:watch?event_ids=count";

fn watch_by_sse() -> Request<Body> {
    request("GET", COUNT, "", "")
}

fn watch_by_grpc() -> Request<Body> {
    call(WATCH_EVENTS, "application/grpc", "", framed(&WatchEventsRequest { event_ids: vec!["count".into()] }))
}

/// Opens a stream and reads nothing of it until its reader is given up. Returns what is read then, to its end.
async fn read_after_the_end(watch: fn() -> Request<Body>) -> Collected<Bytes> {
    let (url, _guard) = services::serve().await;
    let front = Front::start(&[("--event-urls", url.as_str()), READ_STALL]).await;
    // There is no connection here that could be cut.
    let unread = front.open(watch()).await.into_body();
    // Once nobody is left to watch the first stream of the service, a newcomer opens the second.
    let is_given_up = || async { shows(front.open(watch()).await.into_body(), "evt_2").await.then_some(()) };
    eventually("the reader is given up", is_given_up).await;
    timeout(MAX_WAIT, unread.collect()).await.expect("the stream has ended").unwrap()
}

/// Reads a stream until it shows an event. Returns whether it has this id.
async fn shows(mut body: Body, event_id: &str) -> bool {
    let mut text = String::new();
    while !text.contains("evt_") {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(&String::from_utf8_lossy(&frame));
    }
    text.contains(event_id)
}

#[tokio::test]
async fn a_reader_of_events_that_stood_still_is_told_why_it_was_given_up_and_counted() {
    let given_up = Count::of(SLOW_READERS, &[]);
    let read = read_after_the_end(watch_by_sse).await.to_bytes();
    let text = String::from_utf8_lossy(&read);
    assert!(text.contains("evt_1"), "what waited comes first: {text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: problem\n") && last.contains("\"SLOW_READER\""), "{last}");
    given_up.has_grown_by(1);
}

#[tokio::test]
async fn a_reader_over_grpc_that_stood_still_is_told_why_it_was_given_up_and_counted() {
    let given_up = Count::of(SLOW_READERS, &[]);
    let read = read_after_the_end(watch_by_grpc).await;
    let status = Status::from_header_map(read.trailers().unwrap()).unwrap();
    assert_eq!((status.code(), Problem::from_status(&status).reason()), (Code::Unavailable, Reason::SlowReader));
    assert!(String::from_utf8_lossy(&read.to_bytes()).contains("evt_1"), "what waited comes first");
    given_up.has_grown_by(1);
}

/// Watches events that are larger than the window, reads nothing for so long, and then all. Returns how it ends.
async fn end_after_a_pause(door: &Door, pause: Duration) -> Status {
    let endpoint = Endpoint::from_shared(format!("http://{}", door.address)).unwrap();
    let channel = endpoint.initial_stream_window_size(16_384_u32).connect().await.unwrap();
    let request = WatchEventsRequest { event_ids: vec!["flood".into()] };
    let mut stream = EventServiceClient::new(channel).watch_events(request).await.unwrap().into_inner();
    sleep(pause).await;
    let to_the_end = async {
        loop {
            match stream.message().await {
                Ok(message) => assert!(message.is_some(), "it has failed, and does not end well"),
                Err(status) => return status,
            }
        }
    };
    timeout(MAX_WAIT, to_the_end).await.expect("the reader was given up")
}

#[tokio::test]
async fn a_reader_that_reads_on_in_time_is_told_why_over_a_connection_too() {
    let door = Door::open(&[("--read-stall-ms", "5500")]).await;
    // It is given up within 4125 ms, and its stream is reset after 5500 ms.
    let pause = Duration::from_millis(4_450);
    let mut reason = None;
    // On a machine that stands still it may come too late.
    for _ in 0..3 {
        if reason != Some(Reason::SlowReader) {
            reason = Some(Problem::from_status(&end_after_a_pause(&door, pause).await).reason());
        }
    }
    assert_eq!(reason, Some(Reason::SlowReader));
}
