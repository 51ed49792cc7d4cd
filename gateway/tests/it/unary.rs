//! Unary calls: the request that is sent on, the answer that comes back, and the failures of a service.

use crate::{
    front::{good_token, request},
    grpc::{WAITS_LESS, WAITS_LONGER, front},
};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;

/// Returns the metadata that the service saw.
fn seen(text: &str) -> BTreeMap<&str, &str> {
    text.split(';').filter_map(|pair| pair.split_once('=')).collect()
}

#[tokio::test]
async fn a_service_sees_who_calls_and_nothing_that_the_caller_made_up() {
    let (front, _guard) = front(&[WAITS_LONGER]).await;
    let mut request = request("GET", "/v1/payments/pay_1", &good_token("buyer"), "");
    for (name, value) in [
        ("x-stampede-user", "usr_somebody"),
        ("x-stampede-role", "service"),
        ("x-stampede-other", "1"),
        ("cookie", "a=b"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // Valid (W3C Trace Context 3.3.1), and longer than all that a service takes as a head.
    let state = (0..32).map(|vendor| format!("k{vendor:03}{}={}", "a".repeat(252), "v".repeat(256)));
    let state = state.collect::<Vec<_>>().join(",");
    request.headers_mut().insert("tracestate", HeaderValue::try_from(state).unwrap());
    let answer = front.send(request).await.json();
    assert_eq!(answer["payment_id"], "pay_1");
    let metadata = seen(answer["order_id"].as_str().unwrap());
    assert_eq!(metadata["x-stampede-user"], "usr_0000000000000000000000001a");
    assert_eq!(metadata["x-stampede-role"], "buyer");
    let trace = metadata.get("traceparent");
    assert!(trace.is_none_or(|trace| !trace.contains("0af7651916cd43dd8448eb211c80319c")), "a stranger names no trace");
    for absent in ["authorization", "cookie", "x-stampede-other", "tracestate"] {
        assert!(!metadata.contains_key(absent), "{absent} was sent on");
    }
    let timeout: u64 = metadata["grpc-timeout"].trim_end_matches(['u', 'm', 'S']).parse().unwrap();
    assert!(metadata["grpc-timeout"].ends_with('u') && timeout <= 60_000_000, "{timeout}");
}

#[tokio::test]
async fn a_caller_without_a_token_is_nobody_even_if_they_say_otherwise() {
    let (front, _guard) = front(&[WAITS_LONGER]).await;
    let mut request = request("POST", "/v1/payments:webhook", &good_token("operator"), "{}");
    request.headers_mut().insert("x-stampede-role", HeaderValue::from_static("service"));
    let answer = front.send(request).await;
    assert_eq!(answer.reason(), "INVALID_SIGNATURE");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(seen(&detail)["x-stampede-role"], "anonymous");
    assert!(!seen(&detail).contains_key("x-stampede-user"));
}

#[tokio::test]
async fn an_answer_has_the_names_of_the_contract_and_its_zeroes() {
    let (front, _guard) = front(&[WAITS_LONGER]).await;
    let answer = front.get("/v1/events", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json(), json!({ "events": [], "next_page_token": "" }));
}

#[tokio::test]
async fn failures_of_a_service_keep_their_reason_and_lose_their_internals() {
    let (patient, _guard) = front(&[WAITS_LONGER]).await;
    let (hasty, _other_guard) = front(&[WAITS_LESS]).await;
    let token = good_token("buyer");
    for (token_sent, status, reason) in [
        ("SOLD_OUT", 409, "SOLD_OUT"),
        ("INVALID_FIELD", 400, "INVALID_FIELD"),
        ("NOT_READY", 503, "NOT_READY"),
        ("PAYMENT_NOT_FOUND", 404, "PAYMENT_NOT_FOUND"),
        ("foreign", 500, "INTERNAL"),
        ("panic", 500, "INTERNAL"),
        ("slow", 504, "DEADLINE_EXCEEDED"),
    ] {
        let front = if token_sent == "slow" { &hasty } else { &patient };
        let answer = front.get(&format!("/v1/payments?page_token={token_sent}"), &token).await;
        assert_eq!((answer.reason().as_str(), answer.status.as_u16()), (reason, status), "{token_sent}");
        assert!(!answer.text.contains("secret"), "internals leak: {}", answer.text);
        if token_sent == "SOLD_OUT" {
            assert_eq!(answer.json()["field"], "lines[1]");
            assert_eq!(answer.json()["metadata"], json!({ "left": "3" }));
        }
    }
}
