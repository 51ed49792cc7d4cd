//! A card number that a buyer sends by mistake is refused, and no answer and no log repeats it.

use crate::{
    roles::token,
    sale::{LONG, Sale},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use stampede_testkit::{Process, Service, buyer};

/// A number for tests that an issuer publishes, in the ways that people write it.
const CARD: &str = "4000056655665556";
const SPACED: &str = "4000 0566 5566 5556";
const DOTTED: &str = "4000.0566.5566.5556";

/// Posts to the gateway, with this `Idempotency-Key` if it has one. Returns the problem.
async fn refused(sale: &Sale, token: &str, path: &str, key: Option<&str>, body: &Value) -> Value {
    let mut request = Request::post(format!("{}{path}", sale.mesh.url(Process::Gateway)))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request: Request<Full<Bytes>> = request.body(Full::from(body.to_string())).unwrap();
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_number_is_refused_and_never_repeated() {
    let sale = Sale::open(LONG).await;
    let order = sale.placed(buyer(), &[(0, 1)], "").await;
    let token = token(&sale.mesh, "buyer");
    let pay = format!("/v1/orders/{}:pay", order.order_id);
    let table = [
        ("payment_method", None, json!({"request_id": "p", "payment_method": CARD})),
        ("payment_method", None, json!({"request_id": "p", "payment_method": format!("visa {SPACED}")})),
        ("payment_method", None, json!({"request_id": "p", "payment_method": format!("visa {DOTTED}")})),
        ("request_id", None, json!({"request_id": CARD, "payment_method": "pm_card_ok"})),
        ("request_id", None, json!({"request_id": DOTTED, "payment_method": "pm_card_ok"})),
        ("request_id", Some(CARD), json!({"payment_method": "pm_card_ok"})),
        ("request_id", Some("k"), json!({"request_id": CARD, "payment_method": "pm_card_ok"})),
    ];
    let is_said = |text: &str| [CARD, SPACED, DOTTED].into_iter().any(|card| text.contains(card));
    for (field, key, body) in table {
        let problem = refused(&sale, &token, &pay, key, &body).await;
        assert_eq!((problem["reason"].as_str(), problem["field"].as_str()), (Some("INVALID_FIELD"), Some(field)));
        let said = problem.to_string();
        assert!(!is_said(&said), "{said}");
    }
    for process in [Process::Gateway, Service::Order.into(), Service::Payment.into()] {
        let log = sale.mesh.log(process).unwrap();
        assert!(!is_said(&log), "{process} has logged a card number");
    }
    sale.mesh.stop().await.unwrap();
}
