//! The seeded mode: a provider that fails as real ones do, the same way each time.

use crate::{
    caller::{Sandbox, journal_dir},
    webhooks::{SECRET, merchant, next},
};
use http::StatusCode;
use serde_json::Value;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

#[tokio::test]
async fn what_fails_first_is_done_once_under_the_same_key() {
    let dir = journal_dir();
    let flags = ["--mode", "seeded", "--faults", "fail=100,timeout-after=100"];
    let sandbox = Sandbox::start(&dir, &flags).await;
    let (failed, _) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!(failed, StatusCode::INTERNAL_SERVER_ERROR);
    let (missing, _) = sandbox.get("/v1/charges/by-key/pay:1").await;
    assert_eq!(missing, StatusCode::NOT_FOUND);
    let (status, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!((status, charge["status"].as_str()), (StatusCode::OK, Some("captured")));

    let (failed, _) = sandbox.refund("r1", &charge["id"], 100).await;
    assert_eq!(failed, StatusCode::INTERNAL_SERVER_ERROR);
    for _ in 0..2 {
        let (status, refund) = sandbox.refund("r1", &charge["id"], 100).await;
        assert_eq!((status, refund["status"].as_str()), (StatusCode::OK, Some("refunded")));
    }
    let (_, refunds) = sandbox.get("/v1/refunds").await;
    assert_eq!(refunds["refunds"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_refund_of_a_good_card_is_pending_until_it_is_done_or_fails() {
    for (fault, end) in [("pending-refund=100", "refunded"), ("failed-refund=100", "failed")] {
        let dir = journal_dir();
        let flags = ["--mode", "seeded", "--faults", fault, "--late-ms"];
        let sandbox = Sandbox::start(&dir, &[&flags[..], &["60000"]].concat()).await;
        let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
        let (status, refund) = sandbox.refund("r1", &charge["id"], 100).await;
        assert_eq!((status, refund["status"].as_str()), (StatusCode::ACCEPTED, Some("pending")), "{refund}");
        sandbox.stop().await;

        let sandbox = Sandbox::start(&dir, &[&flags[..], &["150"]].concat()).await;
        sandbox.wait_for_refund("r1", end).await;
        let (status, refund) = sandbox.refund("r1", &charge["id"], 100).await;
        assert_eq!((status, refund["status"].as_str()), (StatusCode::OK, Some(end)), "{refund}");
        sandbox.stop().await;
    }
}

#[tokio::test]
async fn the_same_seed_has_the_same_outcomes() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let dir = journal_dir();
        let flags = ["--mode", "seeded", "--seed", "7", "--faults", "decline=50,pending=50", "--late-ms", "60000"];
        let sandbox = Sandbox::start(&dir, &flags).await;
        let mut outcomes = Vec::new();
        for number in 0..30 {
            let (status, answer) = sandbox.charge(&format!("pay:{number}"), 100, "pm_card_ok").await;
            outcomes.push((status, answer["error"]["code"].clone()));
        }
        runs.push(outcomes);
        sandbox.stop().await;
    }
    assert_eq!(runs[0], runs[1]);
    for status in [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::PAYMENT_REQUIRED] {
        assert!(runs[0].iter().any(|(found, _)| *found == status), "{status}");
    }
}

#[tokio::test]
async fn without_the_mode_nothing_is_left_to_chance() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &["--faults", "fail=100,decline=100"]).await;
    let (status, _) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!(status, StatusCode::OK);
}

/// A sandbox whose notices all meet with this fault, and what its merchant receives.
async fn notifying(dir: &TempDir, fault: &str, late_ms: &str) -> (Sandbox, UnboundedReceiver<Value>) {
    let (url, notices) = merchant(0).await;
    let seeded = ["--mode", "seeded", "--faults", fault, "--late-ms", late_ms];
    let flags = [&seeded[..], &["--webhook-url", &url, "--webhook-secret", SECRET]].concat();
    (Sandbox::start(dir, &flags).await, notices)
}

#[tokio::test]
async fn a_notice_comes_twice_and_both_say_the_same() {
    let dir = journal_dir();
    let (sandbox, mut notices) = notifying(&dir, "duplicate-notice=100", "150").await;
    let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let (captured, again) = (next(&mut notices).await, next(&mut notices).await);
    assert_eq!(captured["type"], "charge.captured");
    assert_eq!(captured["charge_id"], charge["id"]);
    assert_eq!(again, captured);
    sandbox.refund("r1", &charge["id"], 100).await;
    let (refunded, again) = (next(&mut notices).await, next(&mut notices).await);
    assert_eq!(refunded["type"], "refund.succeeded");
    assert_eq!(again, refunded);
    // Stopping waits for every notice that is queued.
    sandbox.stop().await;
    assert!(notices.try_recv().is_err(), "twice, and not more often");
}

#[tokio::test]
async fn a_notice_comes_long_after_what_it_is_about() {
    let dir = journal_dir();
    let (sandbox, mut notices) = notifying(&dir, "late-notice=100", "400").await;
    let asked = Instant::now();
    let (status, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!((status, charge["status"].as_str()), (StatusCode::OK, Some("captured")), "only its notice is late");
    assert_eq!(next(&mut notices).await["charge_id"], charge["id"]);
    assert!(asked.elapsed() >= Duration::from_millis(400), "{:?}", asked.elapsed());
    sandbox.stop().await;
    assert!(notices.try_recv().is_err(), "it comes once");
}

#[tokio::test]
async fn notices_overtake_each_other_and_none_is_lost() {
    let dir = journal_dir();
    let (sandbox, mut notices) = notifying(&dir, "reorder-notice=100", "150").await;
    let keys: Vec<String> = (0..20).map(|number| format!("pay:{number}")).collect();
    for key in &keys {
        sandbox.charge(key, 100, "pm_card_ok").await;
    }
    let mut notified = Vec::new();
    for _ in &keys {
        notified.push(next(&mut notices).await["key"].as_str().map(str::to_owned).expect("a key"));
    }
    assert_ne!(notified, keys, "they are in the sequence of the charges");
    let [mut expected, mut found] = [keys, notified];
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
