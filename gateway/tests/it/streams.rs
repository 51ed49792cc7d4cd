//! Streams as server-sent events: whole, broken half way, and ended by a gateway that leaves.

use crate::{
    front::{Answer, Front, request},
    services,
};
use http_body_util::BodyExt;
use serde_json::Value;
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

/// The events of a stream: type (empty for a message) and data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let blocks = answer.text.split("\n\n").filter(|block| block.contains("data:"));
    blocks.map(|block| (field(block, "event:"), serde_json::from_str(&field(block, "data:")).unwrap())).collect()
}

#[tokio::test]
async fn each_message_is_one_line_of_json() {
    let (front, _guard) = front(&[]).await;
    let answer = front.get(&path("end"), "").await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let events = events(&answer);
    let ids: Vec<_> = events.iter().map(|(_, message)| message["event"]["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["evt_1", "evt_2"]);
    assert_eq!(events[0].1["event"]["name"], "line\nbreak");
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
    let events = events(&answer);
    assert_eq!(events.len(), 3);
    let (kind, problem) = &events[2];
    assert_eq!((kind.as_str(), &problem["reason"]), ("error", &Value::from("UNAVAILABLE")));
    assert_eq!(problem["trace_id"], answer.headers["x-trace-id"].to_str().unwrap());
    assert!(!answer.text.contains("secret"));
}

#[tokio::test]
async fn streams_end_when_the_gateway_leaves() {
    let (front, _guard) = front(&[]).await;
    let mut body = front.open(request("GET", &path("stay"), "", "")).await.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    front.workers.draining().cancel();
    let rest = tokio::time::timeout(Duration::from_secs(2), body.collect()).await;
    let rest = rest.expect("the stream ends").unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&rest).contains("error"), "it ends without a failure");
}

#[tokio::test]
async fn open_streams_are_bounded_and_a_closed_one_makes_place() {
    let (front, _guard) = front(&[("--max-streams", "1")]).await;
    let open = front.open(request("GET", &path("stay"), "", "")).await;
    assert_eq!(front.get(&path("end"), "").await.reason(), "OVERLOADED");
    drop(open);
    assert_eq!(front.get(&path("end"), "").await.status, 200);
}
