//! Charges: the end of each card, and the rules of a key.

use crate::caller::{Sandbox, journal_dir};
use http::StatusCode;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn each_card_ends_as_its_token_says() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    for (card, status, state) in [
        ("pm_card_ok", StatusCode::OK, "captured"),
        ("pm_card_timeout_captured", StatusCode::OK, "captured"),
        ("pm_card_late", StatusCode::ACCEPTED, "pending"),
    ] {
        let (answered, charge) = sandbox.charge(card, 100, card).await;
        assert_eq!((answered, &charge["status"]), (status, &json!(state)), "{card}");
    }
    for (card, code) in [("pm_card_declined", "card_declined"), ("pm_card_insufficient_funds", "insufficient_funds")] {
        let (answered, body) = sandbox.charge(card, 100, card).await;
        assert_eq!(answered, StatusCode::PAYMENT_REQUIRED, "{card}");
        assert_eq!(body["error"]["code"], code, "{card}");
        let (_, found) = sandbox.get(&format!("/v1/charges/by-key/{card}")).await;
        assert_eq!(found["status"], "declined", "{card}");
        assert_eq!(found["decline_code"], code, "{card}");
    }
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_the_same_charge() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let first = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let again = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!(first, again);
    let (_, records) = sandbox.get("/v1/charges").await;
    assert_eq!(records["charges"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn repeats_at_the_same_time_charge_once() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let (one, two, three) = tokio::join!(
        sandbox.charge("pay:1", 100, "pm_card_ok"),
        sandbox.charge("pay:1", 100, "pm_card_ok"),
        sandbox.charge("pay:1", 100, "pm_card_ok"),
    );
    assert_eq!(one, two);
    assert_eq!(two, three);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let (status, body) = sandbox.charge("pay:1", 101, "pm_card_ok").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body["error"]["code"], "idempotency_key_reused");
}

#[tokio::test]
async fn a_captured_time_out_is_booked_before_it_is_answered() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let started = Instant::now();
    let (answer, found) = tokio::join!(
        sandbox.charge("pay:1", 100, "pm_card_timeout_captured"),
        sandbox.wait_for_status("pay:1", "captured"),
    );
    assert!(started.elapsed() >= Duration::from_millis(150), "it answers late");
    assert_eq!(answer.1, found);
}

#[tokio::test]
async fn a_lost_request_leaves_no_trace_and_its_repeat_is_captured() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let (lost, _) = sandbox.charge("pay:1", 100, "pm_card_timeout_lost").await;
    assert_eq!(lost, StatusCode::GATEWAY_TIMEOUT);
    let (found, _) = sandbox.get("/v1/charges/by-key/pay:1").await;
    assert_eq!(found, StatusCode::NOT_FOUND);
    let (repeated, charge) = sandbox.charge("pay:1", 100, "pm_card_timeout_lost").await;
    assert_eq!((repeated, &charge["status"]), (StatusCode::OK, &json!("captured")));
}

#[tokio::test]
async fn a_late_card_is_captured_later() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    sandbox.charge("pay:1", 100, "pm_card_late").await;
    sandbox.wait_for_status("pay:1", "captured").await;
    let (repeated, _) = sandbox.charge("pay:1", 100, "pm_card_late").await;
    assert_eq!(repeated, StatusCode::OK);
}

#[tokio::test]
async fn bad_requests_are_refused_and_book_nothing() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let good = r#"{"amount_minor": 5, "currency": "EUR", "payment_method": "pm_card_ok"}"#;
    let cases = [
        (None, good.to_owned(), 400, "idempotency_key_required"),
        (Some("a b"), good.to_owned(), 400, "idempotency_key_required"),
        (Some("k"), "{".to_owned(), 400, "malformed_request"),
        (Some("k"), good.replace("EUR\"", "EUR\", \"x\": 1"), 400, "malformed_request"),
        (Some("k"), good.replace("5", "0"), 422, "invalid_value"),
        (Some("k"), good.replace("EUR", "eur"), 422, "invalid_value"),
        (Some("k"), good.replace("pm_card_ok", "pm_card"), 422, "invalid_payment_method"),
    ];
    for (key, body, status, code) in cases {
        let (answered, answer) = sandbox.post("/v1/charges", key, &body).await;
        assert_eq!((answered.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{body}");
    }
    let (_, records) = sandbox.get("/v1/charges").await;
    assert_eq!(records, json!({"charges": [], "has_more": false}));
}

#[tokio::test]
async fn the_book_is_listed_page_by_page() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    for key in ["a", "b", "c"] {
        sandbox.charge(key, 100, "pm_card_ok").await;
    }
    let (_, first) = sandbox.get("/v1/charges?limit=2").await;
    assert_eq!(first["has_more"], true);
    let last = first["charges"][1]["id"].as_str().unwrap_or_default();
    let (_, second) = sandbox.get(&format!("/v1/charges?limit=2&after={last}")).await;
    assert_eq!(second["has_more"], false);
    let keys = [&first["charges"][0], &first["charges"][1], &second["charges"][0]];
    assert_eq!(keys.map(|charge| charge["key"].clone()), ["a", "b", "c"].map(|key| json!(key)));
    let (unknown, _) = sandbox.get("/v1/charges?after=ch_none").await;
    assert_eq!(unknown, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn more_requests_than_allowed_are_refused_for_now() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &["--max-requests-in-flight", "1"]).await;
    let (one, two) = tokio::join!(
        sandbox.charge("a", 100, "pm_card_timeout_captured"),
        sandbox.charge("b", 100, "pm_card_timeout_captured"),
    );
    let mut statuses = [one.0.as_u16(), two.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}
