//! Notices to the merchant: signed, retried, and sent for every end of a charge or refund.

use crate::caller::{Sandbox, journal_dir};
use axum::{Router, extract::State, routing::post};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::Duration;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

/// The secret that notices are signed with.
pub const SECRET: &str = "a secret between merchant and provider";

#[tokio::test]
async fn every_end_is_notified_with_a_signature() {
    let (url, mut notices) = merchant(0).await;
    let dir = journal_dir();
    let flags = ["--webhook-url", &url, "--webhook-secret", SECRET];
    let sandbox = Sandbox::start(&dir, &flags).await;

    let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let captured = next(&mut notices).await;
    assert_eq!(captured["type"], "charge.captured");
    assert_eq!(captured["key"], "pay:1");
    assert_eq!(captured["charge_id"], charge["id"]);
    assert_eq!((&captured["amount_minor"], &captured["currency"]), (&json!(100), &json!("EUR")));

    sandbox.charge("pay:2", 100, "pm_card_declined").await;
    let declined = next(&mut notices).await;
    assert_eq!(declined["type"], "charge.declined");
    assert_eq!(declined["decline_code"], "card_declined");

    sandbox.refund("r1", &charge["id"], 100).await;
    assert_eq!(next(&mut notices).await["type"], "refund.succeeded");

    sandbox.charge("pay:3", 100, "pm_card_late").await;
    let late = next(&mut notices).await;
    assert_eq!((&late["key"], &late["status"]), (&json!("pay:3"), &json!("captured")));
}

#[tokio::test]
async fn a_refund_that_was_pending_is_notified_of_at_its_end_alone() {
    let (url, mut notices) = merchant(0).await;
    let dir = journal_dir();
    let flags = ["--webhook-url", &url, "--webhook-secret", SECRET];
    let sandbox = Sandbox::start(&dir, &flags).await;
    for (card, kind, status) in [
        ("pm_card_refund_pending", "refund.succeeded", "refunded"),
        ("pm_card_refund_failed", "refund.failed", "failed"),
    ] {
        let (_, charge) = sandbox.charge(card, 100, card).await;
        assert_eq!(next(&mut notices).await["type"], "charge.captured");
        let (_, refund) = sandbox.refund(&format!("{card}:refund"), &charge["id"], 100).await;
        let notice = next(&mut notices).await;
        assert_eq!((&notice["type"], &notice["status"]), (&json!(kind), &json!(status)), "{notice}");
        assert_eq!((&notice["refund_id"], &notice["key"]), (&refund["id"], &refund["key"]), "{notice}");
    }
    // Stopping waits for every notice that is queued.
    sandbox.stop().await;
    assert!(notices.try_recv().is_err(), "one notice of each end");
}

#[tokio::test]
async fn a_notice_that_fails_is_tried_again() {
    let (url, mut notices) = merchant(1).await;
    let dir = journal_dir();
    let flags = ["--webhook-url", &url, "--webhook-secret", SECRET];
    let sandbox = Sandbox::start(&dir, &flags).await;
    sandbox.charge("pay:1", 100, "pm_card_ok").await;
    assert_eq!(next(&mut notices).await["key"], "pay:1");
}

#[tokio::test]
async fn a_repeat_is_not_notified_again() {
    let (url, mut notices) = merchant(0).await;
    let dir = journal_dir();
    let flags = ["--webhook-url", &url, "--webhook-secret", SECRET];
    let sandbox = Sandbox::start(&dir, &flags).await;
    sandbox.charge("pay:1", 100, "pm_card_ok").await;
    sandbox.charge("pay:1", 100, "pm_card_ok").await;
    // Stopping waits for every notice that is queued.
    sandbox.stop().await;
    assert_eq!(next(&mut notices).await["key"], "pay:1");
    assert!(notices.try_recv().is_err(), "one notice only");
}

#[derive(Clone)]
struct Merchant {
    received: mpsc::UnboundedSender<Value>,
    refusals: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

/// Starts a merchant that fails the first so many notices. Returns its URL, and the notices that it received.
pub async fn merchant(refusals: usize) -> (String, mpsc::UnboundedReceiver<Value>) {
    let (received, notices) = mpsc::unbounded_channel();
    let merchant = Merchant { received, refusals: std::sync::Arc::new(refusals.into()) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 can be bound");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let router = Router::new().route("/hook", post(take)).with_state(merchant);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, notices)
}

async fn take(State(merchant): State<Merchant>, headers: HeaderMap, body: String) -> StatusCode {
    use std::sync::atomic::Ordering::SeqCst;
    let refuse = |left: usize| left.checked_sub(1);
    if merchant.refusals.fetch_update(SeqCst, SeqCst, refuse).is_ok() {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let signature = headers["stampede-signature"].to_str().expect("text");
    let (time, digits) = signature.split_once(",v1=").expect("a time and a signature");
    let seconds = time.strip_prefix("t=").expect("a time");
    assert_eq!(digits, hex_hmac(&format!("{seconds}.{body}")), "signed with the secret");
    let notice = serde_json::from_str(&body).expect("a JSON body");
    merchant.received.send(notice).expect("the test still listens");
    StatusCode::OK
}

fn hex_hmac(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key fits");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the next notice.
pub async fn next(notices: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    let notice = timeout(Duration::from_secs(20), notices.recv()).await;
    notice.expect("a notice in time").expect("the merchant still stands")
}
