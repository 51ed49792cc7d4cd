//! The records survive their process.

use crate::caller::{Sandbox, journal_dir};
use http::StatusCode;
use serde_json::json;
use std::{fs::OpenOptions, io::Write};

#[tokio::test]
async fn a_restart_remembers_charges_refunds_and_keys() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let charged = sandbox.charge("pay:1", 100, "pm_card_ok").await;
    let declined = sandbox.charge("pay:2", 100, "pm_card_declined").await;
    let refunded = sandbox.refund("r1", &charged.1["id"], 70).await;
    let books = (sandbox.get("/v1/charges").await, sandbox.get("/v1/refunds").await);
    sandbox.stop().await;

    let sandbox = Sandbox::start(&dir, &[]).await;
    assert_eq!((sandbox.get("/v1/charges").await, sandbox.get("/v1/refunds").await), books);
    assert_eq!(sandbox.charge("pay:2", 100, "pm_card_declined").await, declined);
    assert_eq!(sandbox.refund("r1", &charged.1["id"], 70).await, refunded);
    let (too_much, _) = sandbox.refund("r2", &charged.1["id"], 31).await;
    assert_eq!(too_much, StatusCode::UNPROCESSABLE_ENTITY);
    let (fresh, charge) = sandbox.charge("pay:3", 100, "pm_card_ok").await;
    assert_eq!(fresh, StatusCode::OK);
    assert_ne!(charge["id"], charged.1["id"]);
}

#[tokio::test]
async fn a_charge_that_was_pending_is_captured_after_a_restart() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &["--late-ms", "60000"]).await;
    sandbox.charge("pay:1", 100, "pm_card_late").await;
    sandbox.stop().await;

    let sandbox = Sandbox::start(&dir, &[]).await;
    sandbox.wait_for_status("pay:1", "captured").await;
    sandbox.stop().await;

    let sandbox = Sandbox::start(&dir, &["--late-ms", "60000"]).await;
    sandbox.wait_for_status("pay:1", "captured").await;
}

#[tokio::test]
async fn a_refund_in_a_journal_from_before_refunds_had_a_status_is_done() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    let (_, charge) = sandbox.charge("pay:1", 100, "pm_card_refund_pending").await;
    sandbox.stop().await;
    let refund = json!({
        "entry": "refunded", "id": "re_0000000001", "key": "r1", "charge_id": charge["id"], "amount_minor": 70,
        "currency": "EUR",
    });
    append(&dir, &format!("{refund}\n"));

    let sandbox = Sandbox::start(&dir, &[]).await;
    let (_, refund) = sandbox.get("/v1/refunds/by-key/r1").await;
    assert_eq!(refund["status"], "refunded", "{refund}");
    let (_, charge) = sandbox.get("/v1/charges/by-key/pay:1").await;
    assert_eq!(charge["refunded_minor"], 70, "{charge}");
    sandbox.stop().await;
}

#[tokio::test]
async fn a_line_that_a_kill_cut_off_is_dropped() {
    let dir = journal_dir();
    let sandbox = Sandbox::start(&dir, &[]).await;
    sandbox.charge("pay:1", 100, "pm_card_ok").await;
    sandbox.stop().await;
    append(&dir, r#"{"entry":"charged","id":"ch_00"#);

    let sandbox = Sandbox::start(&dir, &[]).await;
    let (status, _) = sandbox.charge("pay:2", 100, "pm_card_ok").await;
    assert_eq!(status, StatusCode::OK);
    sandbox.stop().await;

    let sandbox = Sandbox::start(&dir, &[]).await;
    let (_, records) = sandbox.get("/v1/charges").await;
    assert_eq!(records["charges"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_journal_with_a_bad_line_is_refused_with_its_number() {
    let dir = journal_dir();
    append(&dir, "not JSON\n");
    let error = Sandbox::start(&dir, &[]).await.ended().await.expect_err("it must not start");
    assert!(format!("{error:#}").contains("line 1"), "{error:#}");
}

#[tokio::test]
async fn two_processes_never_share_a_journal() {
    let dir = journal_dir();
    let first = Sandbox::start(&dir, &[]).await;
    first.charge("pay:1", 100, "pm_card_ok").await;
    let error = Sandbox::start(&dir, &[]).await.ended().await.expect_err("it must not start");
    assert!(error.to_string().contains("in use by another process"), "{error:#}");
}

fn append(dir: &tempfile::TempDir, text: &str) {
    let open = OpenOptions::new().create(true).append(true).open(dir.path().join("journal"));
    let mut journal = open.expect("the journal opens");
    journal.write_all(text.as_bytes()).expect("it can be written");
}
