//! Resources that one address and one buyer may hold, and those that are bounded for all: each refusal has a reason and
//! a retry delay, and ends with its cause.

use crate::{
    front::{Answer, Front, good_token, request},
    meters::{Count, REFUSED},
    services,
};
use axum::body::Body;
use futures_util::{StreamExt, future::join_all, stream};
use http::{HeaderValue, Request, header};
use stampede_chassis::Peer;
use std::net::IpAddr;
use tokio_util::sync::DropGuard;

const WATCH: &str = "/v1/events:watch?event_ids=stay";

async fn front(flags: &[(&str, &str)]) -> (Front, DropGuard) {
    let (url, guard) = services::serve().await;
    let urls = [("--event-urls", url.as_str()), ("--payment-urls", url.as_str())];
    let flags: Vec<_> = urls.into_iter().chain(flags.iter().copied()).collect();
    (Front::start(&flags).await, guard)
}

/// Returns the count of refusals by a bound so far.
fn refusals(held: &str, by: &str) -> Count {
    Count::of(REFUSED, &[("held", held), ("by", by)])
}

/// Returns a request as it comes from a peer, with what that says of the client.
fn from(peer: &str, forwarded_for: &str, path: &str) -> Request<Body> {
    let mut request = request("GET", path, "", "");
    request.extensions_mut().insert(Peer(peer.parse::<IpAddr>().unwrap()));
    if !forwarded_for.is_empty() {
        request.headers_mut().insert("x-forwarded-for", HeaderValue::from_str(forwarded_for).unwrap());
    }
    request
}

fn is_throttled(answer: &Answer) {
    assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("THROTTLED", 429), "{answer:?}");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn the_streams_of_one_address_are_bounded_and_a_slash_64_is_one() {
    let (front, _guard) = front(&[("--max-streams", "8"), ("--address-share-percent", "25")]).await;
    let held = [
        front.open(from("2001:db8::1", "", WATCH)).await,
        front.open(from("2001:db8::ffff", "192.0.2.1", WATCH)).await,
    ];
    let refused = refusals("streams", "address");
    is_throttled(&front.send(from("2001:db8::2", "", WATCH)).await);
    refused.has_grown_by(1);
    assert_eq!(front.open(from("2001:db8:0:1::2", "", WATCH)).await.status(), 200);
    drop(held);
    assert_eq!(front.open(from("2001:db8::2", "", WATCH)).await.status(), 200);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_are_distinguished() {
    let flags = [("--max-streams", "8"), ("--address-share-percent", "12"), ("--trusted-proxies", "10.0.0.0/8")];
    let (front, _guard) = front(&flags).await;
    let _held = front.open(from("10.0.0.1", "192.0.2.1", WATCH)).await;
    is_throttled(&front.send(from("10.0.0.2", "203.0.113.1, 192.0.2.1", WATCH)).await);
    assert_eq!(front.open(from("10.0.0.1", "192.0.2.2", WATCH)).await.status(), 200);
}

#[tokio::test]
async fn streams_are_bounded_by_what_they_are_about_too() {
    let (front, _guard) = front(&[("--max-subjects", "5")]).await;
    let many = format!("{WATCH}&event_ids=b&event_ids=c&event_ids=d");
    let held = front.open(request("GET", &many, "", "")).await;
    assert_eq!(held.status(), 200);
    let refused = refusals("subjects", "all");
    assert_eq!(front.get(&many, "").await.reason(), "OVERLOADED");
    refused.has_grown_by(1);
    assert_eq!(front.open(request("GET", WATCH, "", "")).await.status(), 200, "one fits");
    drop(held);
    assert_eq!(front.open(request("GET", &many, "", "")).await.status(), 200);
}

#[tokio::test]
async fn a_crowd_that_watches_what_is_for_all_leaves_places_to_buyers_who_watch_their_order() {
    let (url, _guard) = services::serve().await;
    for bound in ["--max-streams", "--max-subjects"] {
        // Of ten one is kept for buyers.
        let flags = [("--event-urls", url.as_str()), ("--order-urls", url.as_str()), (bound, "10")];
        let front = Front::start(&flags).await;
        let mut crowd = Vec::new();
        for _ in 0..9 {
            crowd.push(front.open(request("GET", WATCH, "", "")).await);
        }
        assert!(crowd.iter().all(|watcher| watcher.status() == 200), "{bound}");
        assert_eq!(front.get(WATCH, "").await.reason(), "OVERLOADED", "{bound}");
        let own = front.get("/v1/orders/ord_1:watch", &good_token("buyer")).await;
        assert_eq!(own.reason(), "ORDER_NOT_FOUND", "{bound}: the service was asked");
    }
}

#[tokio::test]
async fn one_buyer_has_so_many_requests_under_way_and_an_operator_is_not_counted() {
    let (front, _guard) = front(&[("--max-in-flight-of-user", "1"), ("--request-timeout-ms", "700")]).await;
    let slow = "/v1/payments?page_token=slow";
    let buyer = good_token("buyer");
    let refused = refusals("requests", "user");
    let (first, second) = tokio::join!(front.get(slow, &buyer), async {
        tokio::task::yield_now().await;
        front.get(slow, &buyer).await
    });
    assert_eq!(first.reason(), "DEADLINE_EXCEEDED");
    is_throttled(&second);
    refused.has_grown_by(1);
    let operator = good_token("operator");
    let (first, second) = tokio::join!(front.get(slow, &operator), front.get(slow, &operator));
    assert_eq!((first.reason(), second.reason()), ("DEADLINE_EXCEEDED".to_owned(), "DEADLINE_EXCEEDED".to_owned()));
}

/// Returns a login whose body has so many bytes at first, and then no more.
fn trickling(bytes: usize) -> Request<Body> {
    Request::post("/v1/auth/tokens").body(without_end(bytes)).unwrap()
}

fn without_end(bytes: usize) -> Body {
    let first = stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
    Body::from_stream(first.chain(stream::pending()))
}

#[tokio::test]
async fn one_buyer_has_a_share_of_unfinished_bodies_from_however_many_addresses() {
    // Of them 120 are the share of a buyer.
    let (front, _guard) = front(&[("--max-unfinished-bytes", "1000")]).await;
    let payment = |peer: &str| {
        let mut payment = request("POST", "/v1/orders/ord_1:pay", &good_token("buyer"), "");
        *payment.body_mut() = without_end(100);
        payment.extensions_mut().insert(Peer(peer.parse::<IpAddr>().unwrap()));
        payment
    };
    let refused = refusals("body_bytes", "user");
    let (first, second) = tokio::join!(front.send(payment("192.0.2.1")), async {
        tokio::task::yield_now().await;
        front.send(payment("192.0.2.2")).await
    });
    assert_eq!(first.reason(), "BODY_TIMEOUT");
    is_throttled(&second);
    refused.has_grown_by(1);
}

#[tokio::test]
async fn strangers_whose_bodies_trickle_do_not_refuse_a_payment_that_arrives_in_parts() {
    // Of them 120 are kept for payments.
    let (front, _guard) = front(&[("--max-unfinished-bytes", "1000")]).await;
    let parts = [vec![b' '; 110], b"nonsense".to_vec()].map(Ok::<_, std::io::Error>);
    let mut payment = request("POST", "/v1/orders/ord_1:pay", &good_token("buyer"), "");
    *payment.body_mut() = Body::from_stream(stream::iter(parts));
    let (strangers, paid) = tokio::join!(join_all((0..4).map(|_| front.send(trickling(300)))), async {
        tokio::task::yield_now().await;
        front.send(payment).await
    });
    assert_eq!(paid.reason(), "MALFORMED_JSON", "it was read");
    assert!(strangers.iter().any(|stranger| stranger.reason() == "OVERLOADED"), "all others are taken");
}

#[tokio::test]
async fn bodies_that_arrive_in_parts_are_bounded_by_their_bytes_and_whole_ones_are_not() {
    // Of them 760 are kept for no class, and 120 for logins.
    let (front, _guard) = front(&[("--max-unfinished-bytes", "2000")]).await;
    let (first, (second, whole)) = tokio::join!(front.send(trickling(600)), async {
        tokio::task::yield_now().await;
        let second = front.send(trickling(600)).await;
        (second, front.send(request("POST", "/v1/auth/tokens", "", "{}")).await)
    });
    assert_eq!(second.reason(), "OVERLOADED");
    assert_eq!(whole.status, 201);
    assert_eq!((first.reason().as_str(), first.status.as_u16()), ("BODY_TIMEOUT", 408), "it made no progress");
}

#[tokio::test]
async fn large_answers_that_are_not_read_are_bounded_by_their_bytes() {
    let (front, _guard) = front(&[("--max-unread-bytes", "100000")]).await;
    let large = "/v1/events?page_token=large";
    let unread = front.open(request("GET", large, "", "")).await;
    let refused = refusals("answer_bytes", "all");
    assert_eq!(front.get(large, "").await.reason(), "OVERLOADED");
    refused.has_grown_by(1);
    assert_eq!(front.get("/v1/events", "").await.status, 200, "a small one is not counted");
    drop(unread);
    assert_eq!(front.get(large, "").await.status, 200);
}
