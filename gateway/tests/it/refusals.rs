//! Bad requests: each gets the right status and reason, names the field, and reaches no service.

use crate::front::{Answer, Front, good_token, request, token};
use http::header;

/// Method, path, token, body; then status, reason and field.
type Case<'a> = ((&'a str, &'a str, &'a str, &'a str), (u16, &'a str, Option<&'a str>));

#[tokio::test]
async fn bad_requests_are_refused_before_any_service_is_called() {
    let front = Front::start(&[("--body-limit-bytes", "1000")]).await;
    let (buyer, operator, expired) = (good_token("buyer"), good_token("operator"), token("buyer", 1_000));
    let service = good_token("service");
    let large = format!("{{\"request_id\": \"{}\"}}", "x".repeat(1_000));
    let cases: &[Case<'_>] = &[
        (("GET", "/v1/nothing", "", ""), (404, "UNKNOWN_PATH", None)),
        (("POST", "/v1/orders/ord_1:payy", &buyer, "{}"), (404, "UNKNOWN_PATH", None)),
        (("GET", "/v1/orders/", &buyer, ""), (404, "UNKNOWN_PATH", None)),
        // An empty verb is no second name.
        (("POST", "/v1/auth/tokens:", "", "{}"), (404, "UNKNOWN_PATH", None)),
        (("GET", "/v1/events:", "", ""), (404, "UNKNOWN_PATH", None)),
        (("POST", "/v1/orders:", &buyer, "{}"), (404, "UNKNOWN_PATH", None)),
        (("GET", "/v1/orders/ord_1:", &buyer, ""), (404, "UNKNOWN_PATH", None)),
        (("POST", "/stampede.order.v1.OrderService/LookUpOrders", &operator, "{}"), (404, "UNKNOWN_PATH", None)),
        (("DELETE", "/v1/orders", &buyer, ""), (405, "METHOD_NOT_ALLOWED", None)),
        (("GET", "/v1/auth/tokens", "", ""), (405, "METHOD_NOT_ALLOWED", None)),
        (("POST", "/v1/orders", "", "{}"), (401, "UNAUTHENTICATED", None)),
        (("POST", "/v1/orders", "no.token.atall", "{}"), (401, "UNAUTHENTICATED", None)),
        (("POST", "/v1/orders", &service, "{}"), (401, "UNAUTHENTICATED", None)),
        (("POST", "/v1/orders", &expired, "{}"), (401, "TOKEN_EXPIRED", None)),
        (("POST", "/v1/events", &buyer, "{}"), (403, "PERMISSION_DENIED", None)),
        (("POST", "/v1/orders", &buyer, "{\"request_id\": "), (400, "MALFORMED_JSON", None)),
        (("POST", "/v1/orders", &buyer, "[1]"), (400, "MALFORMED_JSON", None)),
        (("POST", "/v1/orders", &buyer, "{\"lines\":[{\"unit\":1}]}"), (400, "UNKNOWN_FIELD", Some("lines[0].unit"))),
        (
            ("POST", "/v1/orders", &buyer, "{\"lines\":[{\"units\":\"x\"}]}"),
            (400, "INVALID_FIELD", Some("lines[0].units")),
        ),
        (
            ("POST", "/v1/orders", &buyer, "{\"requestId\":\"a\",\"request_id\":\"b\"}"),
            (400, "INVALID_FIELD", Some("request_id")),
        ),
        (
            ("POST", "/v1/auth/tokens:verify", "", "{\"access_token\":\"a\",\"access_token\":\"b\"}"),
            (400, "INVALID_FIELD", Some("access_token")),
        ),
        (("POST", "/v1/auth/tickets", "", "{}"), (401, "UNAUTHENTICATED", None)),
        (("POST", "/v1/auth/tickets", &buyer, "{}"), (400, "INVALID_FIELD", Some("path"))),
        (("POST", "/v1/auth/tickets", &buyer, "{\"path\":\"/v1/orders/ord_1\"}"), (400, "INVALID_FIELD", Some("path"))),
        (("GET", "/v1/orders/ord_1:watch?ticket=no.ticket.atall", &buyer, ""), (401, "UNAUTHENTICATED", None)),
        (("GET", "/v1/orders/ord_1?ticket=no.ticket.atall", &buyer, ""), (400, "UNKNOWN_FIELD", Some("ticket"))),
        (("POST", "/v1/orders", &buyer, &large), (413, "BODY_TOO_LARGE", None)),
        (("POST", "/v1/auth/tokens", "", &large), (413, "BODY_TOO_LARGE", None)),
        (("GET", "/v1/events?page=2", "", ""), (400, "UNKNOWN_FIELD", Some("page"))),
        (("GET", "/v1/events?page_size=many", "", ""), (400, "INVALID_FIELD", Some("page_size"))),
        (("POST", "/v1/auth/tokens", "", "{\"role\":\"operator\"}"), (400, "UNKNOWN_FIELD", Some("role"))),
        (("POST", "/v1/auth/tokens?r%6fle=operator", "", "{}"), (400, "UNKNOWN_FIELD", Some("role"))),
        (("GET", "/?page", "", ""), (400, "UNKNOWN_FIELD", Some("page"))),
        (("POST", "/v1/auth/tokens:verify", "", "{}"), (400, "INVALID_FIELD", Some("access_token"))),
        (
            ("POST", "/v1/auth/tokens:refresh", "", "{\"refresh_token\":7}"),
            (400, "INVALID_FIELD", Some("refresh_token")),
        ),
        (("POST", "/v1/auth/tokens:refresh", "", "{\"refresh_token\":\"rt_x\"}"), (401, "UNAUTHENTICATED", None)),
    ];
    for ((method, path, token, body), (status, reason, field)) in cases {
        let answer = front.send(request(method, path, token, body)).await;
        assert_eq!(answer.reason(), *reason, "{method} {path} {body}");
        assert_eq!(answer.status.as_u16(), *status, "{method} {path} {body}");
        assert_eq!(answer.json()["field"].as_str(), *field, "{method} {path} {body}");
    }
}

#[tokio::test]
async fn a_wrong_method_gets_the_right_ones() {
    let front = Front::start(&[]).await;
    let answer = front.send(request("PUT", "/v1/auth/tokens:verify", "", "")).await;
    assert_eq!(answer.headers[header::ALLOW], "POST, OPTIONS");
    let answer = front.send(request("PUT", "/v1/orders", "", "")).await;
    let mut methods: Vec<_> = answer.headers[header::ALLOW].to_str().unwrap().split(", ").collect();
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "HEAD", "OPTIONS", "POST"]);
}

#[tokio::test]
async fn a_missing_token_is_challenged() {
    let front = Front::start(&[]).await;
    let answer = front.get("/v1/orders", "").await;
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"stampede\"");
    let answer = front.get("/v1/orders", "no.token.atall").await;
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"stampede\", error=\"invalid_token\"");
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let front = Front::start(&[]).await;
    let [one, other] = [front.get("/", "").await, front.get("/v1/nothing", "").await];
    let id = |answer: &Answer| answer.headers["x-trace-id"].to_str().unwrap().to_owned();
    assert_eq!((id(&one).len(), other.json()["trace_id"].as_str()), (32, Some(id(&other).as_str())));
    assert_ne!(id(&one), id(&other));
}

#[tokio::test]
async fn a_service_that_is_down_is_unavailable_and_worth_a_retry() {
    let front = Front::start(&[]).await;
    for path in ["/v1/events", "/v1/events:watch?event_ids=evt_1"] {
        let answer = front.get(path, "").await;
        assert_eq!((answer.reason().as_str(), answer.status.as_u16()), ("UNAVAILABLE", 503), "{path}");
        let seconds: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=3).contains(&seconds), "{seconds}");
        assert!(!answer.text.contains("127.0.0.1"), "internals leak: {}", answer.text);
    }
}

#[tokio::test]
async fn requests_over_the_bound_are_shed() {
    let front = Front::start(&[("--max-in-flight", "1")]).await;
    // The service is down, so the first one waits for a replica for a while.
    let (first, second) = tokio::join!(front.get("/v1/events", ""), async {
        tokio::task::yield_now().await;
        front.get("/v1/events", "").await
    });
    assert_eq!(first.reason(), "UNAVAILABLE");
    assert_eq!((second.reason().as_str(), second.status.as_u16()), ("OVERLOADED", 503));
    assert!(second.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn the_index_says_where_to_go() {
    let front = Front::start(&[]).await;
    assert_eq!(front.get("/", "").await.json()["links"]["events"], "/v1/events");
}
