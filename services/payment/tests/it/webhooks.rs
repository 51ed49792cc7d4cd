//! Notices of the provider.

use crate::{
    sale::{Order, PRICE, Sale},
    stand_in::StandIn,
};
use anyhow::Result;
use futures_util::{StreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use sqlx::Connection;
use stampede_proto::payment::v1::{AttemptState, HandleWebhookRequest, PaymentState};
use stampede_status::{Problem, Reason};
use stampede_testkit::{MeshBuilder, Service};
use stampede_vocab::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

/// What the provider signs its notices with.
pub const SECRET: &str = "a secret between this sale and its provider";
const OTHER_SECRET: &str = "the secret that takes its place";

/// A sale and its provider, of which every charge is pending until the test says otherwise.
pub async fn sale() -> Result<(Sale, StandIn)> {
    let provider = StandIn::start().await?;
    let settings = MeshBuilder::default().set(Service::Payment, "STAMPEDE_WEBHOOK_SECRET", SECRET).set(
        Service::Payment,
        "STAMPEDE_WEBHOOK_SECRET_OTHER",
        OTHER_SECRET,
    );
    let sale = provider.open(settings).await?;
    Ok((sale, provider))
}

/// The signature of a payload now.
pub fn sign(payload: &str) -> String {
    sign_with(SECRET, payload, Duration::ZERO)
}

/// The signature of a payload by this secret, so long ago.
fn sign_with(secret: &str, payload: &str, age: Duration) -> String {
    let seconds = Timestamp::now().minus(age).micros() / 1_000_000;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key fits");
    mac.update(format!("{seconds}.{payload}").as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={digits}")
}

pub fn captured(order: &Order, charge_id: &str, amount: i64) -> String {
    json!({
        "type": "charge.captured", "key": format!("{}:1", order.payment_id()), "charge_id": charge_id,
        "amount_minor": amount, "currency": "EUR", "status": "captured",
    })
    .to_string()
}

pub async fn notify(sale: &Sale, payload: &str, signature: &str) -> Result<(), Status> {
    let request = HandleWebhookRequest { payload: payload.to_owned(), signature: signature.to_owned() };
    sale.mesh.payment().handle_webhook(request).await.map(|_| ())
}

#[tokio::test]
async fn a_signed_notice_ends_a_charge_that_was_pending_and_a_repeat_changes_nothing() -> Result<()> {
    let (sale, provider) = sale().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_late").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    provider.has_captured(&order, "ch_late");
    let payload = captured(&order, "ch_late", PRICE);
    for _ in 0..3 {
        notify(&sale, &payload, &sign(&payload)).await?;
    }
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!(payment.state(), PaymentState::Captured);
    assert_eq!(payment.attempts[0].provider_charge_id, "ch_late");
    assert_eq!(sale.published(&order).await?.len(), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_thousand_replays_have_one_effect() -> Result<()> {
    let (sale, provider) = sale().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_late").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    provider.has_captured(&order, "ch_late");
    let payload = captured(&order, "ch_late", PRICE);
    let signatures = [sign(&payload), sign_with(OTHER_SECRET, &payload, Duration::from_secs(200))];
    let replays: Vec<_> = (0..1_000).map(|replay| notify(&sale, &payload, &signatures[replay % 2])).collect();
    let answers: Vec<_> = stream::iter(replays).buffer_unordered(50).collect().await;
    for answer in answers {
        answer?;
    }
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!((payment.state(), payment.attempts.len()), (PaymentState::Captured, 1));
    assert_eq!(sale.published(&order).await?.len(), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_notice_of_what_is_written_already_needs_no_database_and_any_other_does() -> Result<()> {
    let (sale, provider) = sale().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_late").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    provider.has_captured(&order, "ch_late");
    let payload = captured(&order, "ch_late", PRICE);
    notify(&sale, &payload, &sign(&payload)).await?;

    // A transaction that locks the payment waits for this.
    let mut conn = sale.conn().await?;
    let mut holder = conn.begin().await?;
    sqlx::query("SELECT id FROM payments FOR UPDATE").fetch_all(&mut *holder).await?;
    notify(&sale, &payload, &sign(&payload)).await?;
    let other = captured(&order, "ch_other", PRICE);
    let waits = timeout(Duration::from_millis(500), notify(&sale, &other, &sign(&other))).await;
    assert!(waits.is_err(), "it was answered without a lock: {waits:?}");
    holder.rollback().await?;

    notify(&sale, &other, &sign(&other)).await?;
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!(payment.attempts[0].provider_charge_id, "ch_late");
    assert_eq!(sale.published(&order).await?.len(), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_notice_that_is_not_right_changes_nothing() -> Result<()> {
    let (sale, _provider) = sale().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_late").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;

    let good = captured(&order, "ch_late", PRICE);
    let old = sign_with(SECRET, &good, Duration::from_secs(400));
    let guessed = sign_with("guessed", &good, Duration::ZERO);
    let bare = sign(&good).split_once("v1=").expect("a signature").1.to_owned();
    for signature in [String::new(), "00".to_owned(), sign(&good).to_uppercase(), sign("{}"), old, guessed, bare] {
        let refused = notify(&sale, &good, &signature).await.expect_err("a bad signature");
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(Problem::from_status(&refused).reason(), Reason::InvalidSignature);
    }
    let long = captured(&order, &"x".repeat(300), PRICE);
    let odd = captured(&order, "ch_\u{1f389}", PRICE);
    for payload in ["", "{}", r#"{"type":"charge.captured"}"#, long.as_str(), odd.as_str()] {
        let refused = notify(&sale, payload, &sign(payload)).await.expect_err("an unreadable payload");
        let problem = Problem::from_status(&refused);
        assert_eq!((problem.reason(), problem.field_path()), (Reason::InvalidField, Some("payload")));
    }
    // Signed and readable, but of a payment that is not ours, or over another amount: taken, and not believed.
    for payload in [captured(&Order::new(), "ch_1", PRICE), captured(&order, "ch_1", PRICE - 1)] {
        notify(&sale, &payload, &sign(&payload)).await?;
    }
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!(payment.state(), PaymentState::Open);
    assert_eq!(sale.published(&order).await?, []);
    sale.mesh.stop().await
}
