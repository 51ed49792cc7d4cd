//! Refunds: once for each key, never more than was captured, and some of them pending at first.

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

#[tokio::test]
async fn a_refund_that_is_pending_is_no_money_back_and_ends_once_across_restarts() {
    for (card, end, refunded_minor) in
        [("pm_card_refund_pending", "refunded", 60), ("pm_card_refund_failed", "failed", 0)]
    {
        let dir = journal_dir();
        let sandbox = Sandbox::start(&dir, &["--late-ms", "60000"]).await;
        let (charged, charge) = sandbox.charge("pay:1", 100, card).await;
        assert_eq!((charged, charge["status"].as_str()), (StatusCode::OK, Some("captured")), "{charge}");
        for _ in 0..2 {
            let (status, refund) = sandbox.refund("r1", &charge["id"], 60).await;
            assert_eq!((status, refund["status"].as_str()), (StatusCode::ACCEPTED, Some("pending")), "{refund}");
        }
        assert_eq!(sandbox.wait_for_status("pay:1", "captured").await["refunded_minor"], 0);
        let (too_much, _) = sandbox.refund("r2", &charge["id"], 41).await;
        assert_eq!(too_much, StatusCode::UNPROCESSABLE_ENTITY, "{card}: the pending part may still be given back");
        sandbox.stop().await;

        let sandbox = Sandbox::start(&dir, &[]).await;
        let ended = sandbox.wait_for_refund("r1", end).await;
        assert_eq!(sandbox.wait_for_status("pay:1", "captured").await["refunded_minor"], refunded_minor, "{card}");
        sandbox.stop().await;

        let sandbox = Sandbox::start(&dir, &["--late-ms", "60000"]).await;
        assert_eq!(sandbox.refund("r1", &charge["id"], 60).await, (StatusCode::OK, ended), "{card}");
        let (_, found) = sandbox.get("/v1/charges/by-key/pay:1").await;
        assert_eq!(found["refunded_minor"], refunded_minor, "{card}");
        // What has failed is free again, and what is done is not.
        let (too_much, _) = sandbox.refund("r3", &charge["id"], 101 - refunded_minor).await;
        let (rest, _) = sandbox.refund("r4", &charge["id"], 100 - refunded_minor).await;
        assert_eq!((too_much, rest), (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::ACCEPTED), "{card}");
        sandbox.stop().await;
    }
}
