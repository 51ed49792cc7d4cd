//! Conditional requests, caches and compression.

use crate::{
    front::{Answer, Front, good_token, request, with},
    services,
};
use http::header;
use http_body_util::BodyExt;
use tokio_util::sync::DropGuard;

async fn front(flags: &[(&str, &str)]) -> (Front, DropGuard) {
    let (url, guard) = services::serve().await;
    let flags: Vec<_> =
        [("--event-urls", &*url), ("--payment-urls", &*url)].into_iter().chain(flags.iter().copied()).collect();
    (Front::start(&flags).await, guard)
}

fn header_of<'a>(answer: &'a Answer, name: &header::HeaderName) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn who_has_an_answer_is_not_sent_it_again() {
    let (front, _guard) = front(&[]).await;
    let first = front.get("/v1/events", "").await;
    assert_eq!(header_of(&first, &header::CACHE_CONTROL), "public, max-age=1");
    assert_eq!(header_of(&first, &header::VARY), "accept-encoding");
    let tag = header_of(&first, &header::ETAG);
    let again = async |method: &str, path: &str, tag: &str| {
        front.send(with(request(method, path, "", ""), &[("if-none-match", tag)])).await
    };
    for method in ["GET", "HEAD"] {
        let known = again(method, "/v1/events", tag).await;
        assert_eq!((known.status.as_u16(), known.text.as_str()), (304, ""), "{method}");
        assert_eq!(
            (header_of(&known, &header::ETAG), header_of(&known, &header::CACHE_CONTROL)),
            (tag, "public, max-age=1")
        );
    }
    let changed = again("GET", "/v1/events?page_size=1", tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(header_of(&changed, &header::ETAG), tag);
}

#[tokio::test]
async fn what_is_of_one_buyer_is_kept_by_nobody_else() {
    let (front, _guard) = front(&[("--public-max-age-s", "0")]).await;
    let own = front.get("/v1/payments/pay_1", &good_token("buyer")).await;
    assert_eq!(header_of(&own, &header::CACHE_CONTROL), "private, no-cache");
    let shared = front.get("/v1/events", "").await;
    assert_eq!(header_of(&shared, &header::CACHE_CONTROL), "public, no-cache", "as configured");
    let refused = front.get("/v1/payments?page_token=SOLD_OUT", &good_token("buyer")).await;
    assert_eq!((refused.status.as_u16(), header_of(&refused, &header::CACHE_CONTROL)), (409, "no-store"));
    let posted = front.send(request("POST", "/v1/events", &good_token("operator"), "{}")).await;
    assert_eq!((posted.status.as_u16(), header_of(&posted, &header::ETAG)), (200, ""));
}

#[tokio::test]
async fn a_long_answer_is_compressed_for_who_takes_that() {
    let (front, _guard) = front(&[]).await;
    let plain = front.get("/v1/events?page_size=2", "").await;
    assert_eq!(header_of(&plain, &header::CONTENT_ENCODING), "");
    let ask = |path: &str| with(request("GET", path, "", ""), &[("accept-encoding", "gzip, br")]);
    let (head, body) = front.open(ask("/v1/events?page_size=2")).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.headers[header::CONTENT_ENCODING], "gzip");
    assert_eq!(head.headers[header::ETAG], header_of(&plain, &header::ETAG), "it says the same");
    assert_eq!(head.headers[header::VARY], "accept-encoding");
    assert!(body.starts_with(&[0x1f, 0x8b]) && body.len() * 10 < plain.text.len(), "{} bytes", body.len());
    let short = front.send(ask("/v1/events")).await;
    assert_eq!(header_of(&short, &header::CONTENT_ENCODING), "");
    let stream = front.send(ask("/v1/events:watch?event_ids=end")).await;
    assert_eq!(header_of(&stream, &header::CONTENT_ENCODING), "", "an event must not wait for others");
}
