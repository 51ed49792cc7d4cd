//! Promises of HTTP and the contract together: every list arrives, a caller's deadline counts, a repeat is known by its
//! header, a body is checked by its media type, and a service may be older than the gateway.

use crate::{
    front::{Answer, Front, good_token, request, with},
    grpc::WAITS_LONGER,
    raw::MAX_WAIT,
    services,
};
use http::header;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

async fn front() -> (Front, DropGuard) {
    let (url, guard) = services::serve().await;
    (Front::start(&[("--event-urls", &*url), ("--payment-urls", &*url), WAITS_LONGER]).await, guard)
}

#[tokio::test]
async fn the_longest_list_that_the_contract_allows_arrives() {
    let (front, _guard) = front().await;
    let answer = front.get("/v1/events?page_size=100", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.len() > 16_000_000, "{} bytes", answer.text.len());
    assert_eq!(answer.text.matches("\"event_id\":\"evt_1\"").count(), 100);
}

#[tokio::test]
async fn a_service_that_is_older_than_the_gateway_does_not_offer_it_yet() {
    let (front, _guard) = front().await;
    let answer = front.get("/v1/events/evt_1", "").await;
    assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("NOT_IMPLEMENTED", 501));
}

#[tokio::test]
async fn a_path_is_the_same_one_with_letters_escaped() {
    let (front, _guard) = front().await;
    assert_eq!(front.get("/v1/%65vents", "").await.status, 200);
}

#[tokio::test]
async fn a_caller_who_waits_less_is_answered_sooner() {
    let (front, _guard) = front().await;
    let slow = request("GET", "/v1/payments?page_token=slow", &good_token("buyer"), "");
    let answer = timeout(MAX_WAIT, front.send(with(slow, &[("grpc-timeout", "100m")]))).await;
    assert_eq!(answer.expect("the gateway itself would wait").reason(), "DEADLINE_EXCEEDED");
}

const KEY: (&str, &str) = ("idempotency-key", "k-1");

async fn create(front: &Front, body: &str, keys: &[(&'static str, &str)]) -> Answer {
    front.send(with(request("POST", "/v1/events", &good_token("operator"), body), keys)).await
}

#[tokio::test]
async fn an_idempotency_key_is_the_request_id() {
    let (front, _guard) = front().await;
    for (body, keys) in [
        ("{}", vec![KEY]),
        ("", vec![KEY]),
        ("{\"request_id\":\"k-1\"}", vec![KEY]),
        ("{\"requestId\":\"k-1\"}", vec![]),
        ("{}", vec![("idempotency-key", "\"k-1\"")]),
    ] {
        assert_eq!(create(&front, body, &keys).await.json()["name"], "k-1", "{body} {keys:?}");
    }
    let differ = create(&front, "{\"request_id\":\"k-2\"}", &[KEY]).await;
    assert_eq!((differ.reason().as_str(), differ.status.as_u16()), ("INVALID_FIELD", 400));
    assert_eq!(differ.json()["metadata"], serde_json::json!({ "request_id": "k-2", "idempotency_key": "k-1" }));
    assert_eq!(create(&front, "{}", &[KEY, KEY]).await.json()["field"], "request_id");
    // Where there is nothing to repeat it is ignored.
    assert_eq!(front.send(with(request("GET", "/v1/events", "", ""), &[KEY])).await.status, 200);
}

#[tokio::test]
async fn a_body_that_says_it_is_no_json_is_not_read_as_json() {
    let front = Front::start(&[]).await;
    let verify = |headers: &[(&'static str, &str)]| {
        with(request("POST", "/v1/auth/tokens:verify", "", "{\"access_token\":\"a\"}"), headers)
    };
    for header in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        let answer = front.send(verify(&[header])).await;
        assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("UNSUPPORTED_MEDIA_TYPE", 415), "{header:?}");
    }
    for headers in [&[][..], &[("content-type", "application/json; charset=utf-8")]] {
        let answer = front.send(verify(headers)).await;
        assert_eq!(answer.status, 200, "{headers:?}");
    }
    let empty = request("POST", "/v1/auth/tokens", "", "");
    assert_eq!(front.send(with(empty, &[("content-type", "text/plain")])).await.status, 201);
}

#[tokio::test]
async fn a_head_has_the_headers_of_its_get() {
    let (front, _guard) = front().await;
    let [get, head] = [front.get("/v1/events", "").await, front.send(request("HEAD", "/v1/events", "", "")).await];
    assert_eq!((head.status, head.text.as_str()), (get.status, ""));
    assert_eq!(head.headers[header::ETAG], get.headers[header::ETAG]);
}

#[tokio::test]
async fn a_gateway_that_leaves_says_so_to_whoever_may_come_again_over_the_same_connection() {
    let front = Front::start(&[]).await;
    assert!(front.get("/", "").await.headers.get(header::CONNECTION).is_none());
    front.workers.draining().cancel();
    let answer = front.get("/", "").await;
    assert_eq!((answer.status.as_u16(), answer.headers[header::CONNECTION].as_bytes()), (200, &b"close"[..]));
    let connect = request("POST", "/stampede.event.v1.EventService/ListEvents", "", "{}");
    let connect = with(connect, &[("content-type", "application/json")]);
    assert_eq!(front.send(connect).await.headers[header::CONNECTION], "close", "in whatever protocol it comes");
    let mut over_http2 = request("GET", "/", "", "");
    *over_http2.version_mut() = http::Version::HTTP_2;
    assert!(front.send(over_http2).await.headers.get(header::CONNECTION).is_none(), "HTTP/2 has no such header");
}
