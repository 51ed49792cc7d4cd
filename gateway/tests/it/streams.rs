//! Streams as server-sent events: whole, broken half way, opened again, and ended by a gateway that leaves.

use crate::{
    front::{Front, request, with},
    services,
};
use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use stampede_testkit::eventually;
use std::time::Duration;
use tokio_util::sync::DropGuard;

async fn front(flags: &[(&str, &str)]) -> (Front, DropGuard) {
    let (url, guard) = services::serve().await;
    let flags: Vec<_> = [("--event-urls", url.as_str())].into_iter().chain(flags.iter().copied()).collect();
    (Front::start(&flags).await, guard)
}

fn path(id: &str) -> String {
    format!("/v1/events:watch?event_ids={id}")
}

/// One event of a stream. A message has no type.
struct Event {
    kind: String,
    id: String,
    data: Value,
}

/// Returns the events of a stream.
fn events(text: &str) -> Vec<Event> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    let read = |block| Event {
        kind: field(block, "event:"),
        id: field(block, "id:"),
        data: serde_json::from_str(&field(block, "data:")).unwrap(),
    };
    blocks.map(read).collect()
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

/// Returns the ids of the events that the messages of a stream show.
fn shown(events: &[Event]) -> Vec<&str> {
    let messages = events.iter().filter(|event| event.kind.is_empty());
    messages.map(|message| message.data["event_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_stream_tells_the_time_then_its_messages_then_that_it_ends() {
    let (front, _guard) = front(&[]).await;
    let answer = front.get(&path("end"), "").await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    let events = events(&answer.text);
    assert_eq!(kinds(&events), ["time", "", "", "end"]);
    assert_eq!(shown(&events), ["evt_1", "evt_2"]);
    assert_eq!(events[1].data["name"], "line\nbreak");
    for event in [&events[0], &events[3]] {
        assert!(event.data["server_time"].as_str().unwrap().ends_with('Z'), "{}", event.data);
    }
    assert!(answer.text.starts_with("event: time") && answer.text.contains("\nretry: "), "{}", answer.text);
    assert_ne!(events[1].id, events[2].id);
    assert_eq!((events[1].id.len(), events[3].id.as_str()), (16, "end"));
}

/// Returns the ids that are shown to a reader who comes back and saw this event last.
async fn shown_again(front: &Front, last_seen: &str) -> Vec<String> {
    let again = with(request("GET", &path("end"), "", ""), &[("last-event-id", last_seen)]);
    let events = events(&front.send(again).await.text);
    shown(&events).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn who_comes_back_is_not_shown_again_what_they_saw_last() {
    let (front, _guard) = front(&[]).await;
    let first = events(&front.get(&path("end"), "").await.text);
    assert_eq!(shown_again(&front, &first[1].id).await, ["evt_2"]);
    assert_eq!(shown_again(&front, &first[2].id).await, ["evt_1", "evt_2"], "one may have changed meanwhile");
    assert_eq!(shown_again(&front, "nonsense").await, ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn who_comes_back_after_the_end_is_answered_204() {
    // No service is there to be called.
    let front = Front::start(&[]).await;
    let back = |path: &str| with(request("GET", path, "", ""), &[("last-event-id", "end")]);
    for path in ["/v1/events:watch?event_ids=evt_1", "/v1/orders/ord_1:watch?ticket=of.long.ago"] {
        let answer = front.send(back(path)).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{path}");
    }
    assert_eq!(front.send(back("/v1/orders")).await.reason(), "UNAUTHENTICATED", "it is no stream");
}

#[tokio::test]
async fn a_stream_that_is_refused_is_an_ordinary_problem() {
    let (front, _guard) = front(&[]).await;
    let answer = front.get(&path("none"), "").await;
    assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("EVENT_NOT_FOUND", 404));
    assert_eq!(answer.json()["field"], "event_ids[0]");
}

#[tokio::test]
async fn a_stream_that_breaks_half_way_says_so_and_ends() {
    let (front, _guard) = front(&[]).await;
    let answer = front.get(&path("break"), "").await;
    let events = events(&answer.text);
    assert_eq!(kinds(&events), ["time", "", "", "problem"]);
    let problem = &events[3].data;
    assert_eq!(problem["reason"], "UNAVAILABLE");
    assert_eq!(problem["trace_id"], answer.headers["x-trace-id"].to_str().unwrap());
    assert!(!answer.text.contains("secret"));
}

#[tokio::test]
async fn a_gateway_that_leaves_says_so_and_not_that_the_stream_has_ended() {
    let (front, _guard) = front(&[]).await;
    let mut body = front.open(request("GET", &path("stay"), "", "")).await.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    front.workers.draining().cancel();
    let rest = tokio::time::timeout(Duration::from_secs(10), body.collect()).await;
    let rest = rest.expect("the stream ends").unwrap().to_bytes();
    let events = events(&String::from_utf8_lossy(&rest));
    assert_eq!(events.last().map(|event| (event.kind.as_str(), event.id.as_str())), Some(("drain", "")));
    assert!(!kinds(&events).contains(&"end") && !kinds(&events).contains(&"problem"));
}

#[tokio::test]
async fn open_streams_are_bounded_and_a_closed_one_makes_place() {
    let (front, _guard) = front(&[("--max-streams", "1")]).await;
    let open = front.open(request("GET", &path("stay"), "", "")).await;
    assert_eq!(front.get(&path("end"), "").await.reason(), "OVERLOADED");
    drop(open);
    assert_eq!(front.get(&path("end"), "").await.status, 200);
}

/// Reads until the first message. Returns the id of its event, and the stream.
async fn first_shown(front: &Front) -> (String, Body) {
    let mut body = front.open(request("GET", &path("count"), "", "")).await.into_body();
    let mut text = String::new();
    loop {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        text.push_str(&String::from_utf8_lossy(&frame));
        if let Some(id) = shown(&events(&text)).first() {
            return ((*id).to_owned(), body);
        }
    }
}

#[tokio::test]
async fn a_crowd_that_watches_the_same_is_one_stream_of_the_service() {
    let (front, _guard) = front(&[]).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let (id, body) = first_shown(&front).await;
        assert_eq!(id, "evt_1");
        open.push(body);
    }
    drop(open);
    // The next one may still meet the stream that the last of them has left.
    eventually("the service is asked again", || async { (first_shown(&front).await.0 == "evt_2").then_some(()) }).await;
}
