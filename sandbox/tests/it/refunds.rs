//! Refunds: once for each key, and never more than was captured.

use crate::caller::{Sandbox, journal_dir};
use http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn refunds_never_exceed_the_capture() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let (first, _) = sandbox.refund("r1", &charge["id"], 60).await;
    let (second, refused) = sandbox.refund("r2", &charge["id"], 41).await;
    let (third, _) = sandbox.refund("r3", &charge["id"], 40).await;
    let (fourth, _) = sandbox.refund("r4", &charge["id"], 1).await;
    assert_eq!((first, third), (StatusCode::OK, StatusCode::OK));
    assert_eq!(second, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["error"]["code"], "refund_exceeds_capture");
    assert_eq!(fourth, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, found) = sandbox.get("/v1/charges/by-key/pay:1").await;
    assert_eq!(found["refunded_minor"], 100);
}

#[tokio::test]
async fn a_repeat_under_the_same_key_refunds_once() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let first = sandbox.refund("r1", &charge["id"], 100).await;
    let again = sandbox.refund("r1", &charge["id"], 100).await;
    assert_eq!(first, again);
    assert_eq!(first.1["status"], "refunded");
    let (other, _) = sandbox.refund("r1", &charge["id"], 50).await;
    assert_eq!(other, StatusCode::CONFLICT);
    let (_, found) = sandbox.get("/v1/refunds/by-key/r1").await;
    assert_eq!(found, first.1);
    let (unknown, _) = sandbox.get("/v1/refunds/by-key/r2").await;
    assert_eq!(unknown, StatusCode::NOT_FOUND);
    let (_, charge) = sandbox.get(&format!("/v1/charges/{}", charge["id"].as_str().expect("an id"))).await;
    assert_eq!((&charge["key"], &charge["refunded_minor"]), (&json!("pay:1"), &json!(100)));
    let (unknown, _) = sandbox.get("/v1/charges/ch_none").await;
    assert_eq!(unknown, StatusCode::NOT_FOUND);
    let (_, records) = sandbox.get("/v1/refunds").await;
    assert_eq!(records["refunds"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_was_not_captured_is_not_refunded() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &["--late-ms", "60000"]).await;
    for card in ["pm_card_declined", "pm_card_late"] {
        sandbox.charge(card, 100, card).await;
        let (_, charge) = sandbox.get(&format!("/v1/charges/by-key/{card}")).await;
        let (status, _) = sandbox.refund(card, &charge["id"], 1).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{card}");
    }
    let (unknown, _) = sandbox.refund("r", &json!("ch_none"), 1).await;
    assert_eq!(unknown, StatusCode::NOT_FOUND);
}
