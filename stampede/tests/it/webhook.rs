//! A webhook from end to end: signed over its bytes, through the gateway, to the payment service.

use crate::sale::{LONG, Sale, eur};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use sha2::Sha256;
use stampede_proto::{
    order::v1::{Order, OrderState},
    payment::v1::{GetPaymentRequest, PaymentState},
};
use stampede_testkit::{MeshBuilder, Process, as_operator, buyer, eventually};
use stampede_vocab::{Timestamp, UserId};

/// An address that nobody listens on.
const NOBODY: &str = "http://127.0.0.1:9/v1/payments:webhook";
/// The mark of the transactions in which the payment service claims charges to look them up. While these are broken
/// off, only an answer or a notice of the provider settles a charge.
pub const LOOK_UPS: &str = "SELECT payment_id, attempt FROM attempts FORCE INDEX (PRIMARY)";

/// Waits until the provider has captured the charge under a key. Returns its id.
pub async fn captured(sale: &Sale, key: &str) -> String {
    eventually("the provider has captured the charge", || async {
        let url = format!("{}/v1/charges/by-key/{key}", sale.mesh.url(Process::Sandbox));
        let (status, charge) = send(Request::get(url).body(Full::default()).unwrap()).await;
        let is_captured = status == StatusCode::OK && charge["status"] == "captured";
        is_captured.then(|| charge["id"].as_str().unwrap().to_owned())
    })
    .await
}

/// Pays an order by a card whose money comes late, and waits until the provider has the charge: a charge that was not
/// sent when its order ends is never made.
pub async fn pay_late(sale: &Sale, user: UserId, order: &Order) {
    let paying = sale.pay(user, order, "pm_card_late").await.unwrap();
    let url = format!("{}/v1/charges/by-key/{}:1", sale.mesh.url(Process::Sandbox), paying.payment_id);
    eventually("the provider has the charge", || async {
        let (status, _) = send(Request::get(&url).body(Full::default()).unwrap()).await;
        (status == StatusCode::OK).then_some(())
    })
    .await;
}

pub async fn send(request: Request<Full<Bytes>>) -> (StatusCode, Value) {
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Signs a text as the provider does.
pub fn signature(sale: &Sale, text: &str) -> String {
    let seconds = Timestamp::now().micros() / 1_000_000;
    let mut mac = Hmac::<Sha256>::new_from_slice(sale.mesh.webhook_secret().as_bytes()).unwrap();
    mac.update(format!("{seconds}.{text}").as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={digits}")
}

/// A notice for the gateway, of this media type and with this signature.
pub fn notice(sale: &Sale, media_type: &str, body: &str, signature: &str) -> Request<Full<Bytes>> {
    let request = Request::post(format!("{}/v1/payments:webhook", sale.mesh.url(Process::Gateway)))
        .header("content-type", media_type)
        .header("stampede-signature", signature)
        .body(Full::from(body.to_owned()));
    request.unwrap()
}

/// Posts a notice of this media type to the gateway, with the signature of another text or its own.
pub async fn notify(sale: &Sale, media_type: &str, body: &str, signed: &str) -> (StatusCode, Value) {
    send(notice(sale, media_type, body, &signature(sale, signed))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_arrives_byte_for_byte_and_ends_the_payment() {
    // The provider's own notices do not arrive.
    let settings = MeshBuilder::default().set(Process::Sandbox, "STAMPEDE_SANDBOX_WEBHOOK_URL", NOBODY).set(
        Process::Sandbox,
        "STAMPEDE_SANDBOX_LATE_MS",
        4_000,
    );
    let sale = Sale::open_on(settings, LONG).await;
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    assert_eq!(order.total, eur(1_999));
    let paying = sale.pay(user, &order, "pm_card_late").await.unwrap();
    let key = format!("{}:1", paying.payment_id);
    let charge_id = captured(&sale, &key).await;

    // With blanks and a key order that no serializer would write.
    let body = format!(
        "{{ \"status\" : \"captured\",\n  \"currency\":\"EUR\", \"amount_minor\":1999 ,\"charge_id\":\"{charge_id}\",\
         \"key\":\"{key}\", \"type\":\"charge.captured\" }}\r\n"
    );
    let (status, problem) = notify(&sale, "application/json", &body, body.trim_end()).await;
    assert_eq!((status, problem["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("INVALID_SIGNATURE")));
    let (status, problem) = notify(&sale, "application/octet-stream", &body, &body).await;
    assert_eq!(status, StatusCode::OK, "{problem}");
    // Looked up and written before it is answered.
    let look = GetPaymentRequest { payment_id: paying.payment_id.clone() };
    let payment = sale.mesh.payment().get_payment(as_operator(look)).await.unwrap().into_inner().payment;
    assert_eq!(payment.unwrap().state(), PaymentState::Captured);
    sale.until(user, &order, OrderState::Fulfilled).await;
    sale.mesh.stop().await.unwrap();
}
