//! The audit of charges that only the provider has.

use crate::{
    breaks::Id,
    sale::Sale,
    sold::{AT_ONCE, Sold},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use stampede_testkit::{Process, Service};

/// Calls the provider, as the payment service would.
pub async fn ask(sale: &Sale, path: &str, key: &str, body: &Value) -> Value {
    let http: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("{}{path}", sale.mesh.url(Process::Sandbox)))
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap();
    let answer = http.request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{status}: {body:?}");
    serde_json::from_slice(&body).unwrap()
}

async fn charge(sold: &Sold, key: &str, card: &str) -> Value {
    ask(&sold.sale, "/v1/charges", key, &json!({"amount_minor": 2_998, "currency": "EUR", "payment_method": card}))
        .await
}

const SECOND_ATTEMPT: &str = "INSERT INTO attempts (payment_id, attempt, state, payment_method, checks, created_us, updated_us) VALUES ({payment}, 2, 'DECLINED', 'x', 0, 0, 0)";
const THIRD_ATTEMPT: &str = "INSERT INTO attempts (payment_id, attempt, state, payment_method, checks, created_us, updated_us) VALUES ({payment}, 3, 'DECLINED', 'x', 0, 0, 0)";
const REFUND: &str = "INSERT INTO refunds (payment_id, attempt, state, currency, amount_minor, checks, created_us, updated_us) VALUES ({payment}, 2, 'REFUNDED', 'EUR', 2998, 0, 0, 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_too_many_is_named_even_if_it_was_given_back() {
    let sold = Sold::new().await;
    let payment = sold.payment();

    let second = charge(&sold, &format!("{payment}:2"), "pm_card_ok").await;
    sold.assert_named(AT_ONCE, &[(3, "the provider charged for an attempt that we do not know", Id::Payment)]);
    sold.run(&[(Service::Payment, SECOND_ATTEMPT)]).await;
    let surplus = "the provider charged more often than we know of";
    sold.assert_named(AT_ONCE, &[(3, surplus, Id::Payment)]);

    let refund = json!({"charge_id": second["id"], "amount_minor": 2_998});
    ask(&sold.sale, "/v1/refunds", &format!("{payment}:2:refund"), &refund).await;
    sold.run(&[(Service::Payment, REFUND)]).await;
    sold.assert_named(AT_ONCE, &[(3, surplus, Id::Payment), (3, "charged twice", Id::Payment)]);
}

const DECLINED_BY_OPERATOR: &str = "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, state, verdict, found_us) VALUES ({payment}, 2, 'CHARGE', 'NO_ANSWER', 'x', 'SETTLED', 'DECLINED', 0)";

const TAKEN_BACK: &str = "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, state, verdict, found_us) VALUES ({payment}, 2, 'REFUND', 'REFUND_TAKEN_BACK', 'x', 'SETTLED', 'NOTED', 0)";

/// Whether promise 3 holds: the attempts that are made up here break others.
fn charged_right(sold: &Sold) -> bool {
    sold.sale.run_audit(AT_ONCE).promises[2].holds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_capture_of_a_declined_attempt_is_named_until_all_of_it_is_refunded() {
    let sold = Sold::new().await;
    let payment = sold.payment();
    sold.run(&[(Service::Payment, SECOND_ATTEMPT), (Service::Payment, DECLINED_BY_OPERATOR)]).await;
    assert!(charged_right(&sold));

    let late = charge(&sold, &format!("{payment}:2"), "pm_card_ok").await;
    let surplus = "the provider charged more often than we know of";
    sold.assert_named(AT_ONCE, &[(3, surplus, Id::Payment)]);
    let part = json!({"charge_id": late["id"], "amount_minor": 1_000});
    ask(&sold.sale, "/v1/refunds", "a-part-by-hand", &part).await;
    sold.assert_named(AT_ONCE, &[(3, surplus, Id::Payment)]);
    // An operator knows that a refund of it has failed since.
    sold.run(&[(Service::Payment, TAKEN_BACK)]).await;
    assert!(charged_right(&sold));
    sold.run(&[(Service::Payment, "DELETE FROM anomalies WHERE kind = 'REFUND_TAKEN_BACK'")]).await;
    let rest = json!({"charge_id": late["id"], "amount_minor": 1_998});
    ask(&sold.sale, "/v1/refunds", "the-rest-by-hand", &rest).await;
    assert!(charged_right(&sold));
    // As the service writes it when it has given the money back itself.
    sold.run(&[(Service::Payment, REFUND)]).await;
    assert!(charged_right(&sold));

    // Only the decision distinguishes it from a duplicate charge.
    sold.run(&[(Service::Payment, "DELETE FROM anomalies")]).await;
    sold.assert_named(AT_ONCE, &[(3, surplus, Id::Payment), (3, "charged twice", Id::Payment)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_is_pending_is_no_money_back_yet() {
    let sold = Sold::new().await;
    let payment = sold.payment();
    sold.run(&[(Service::Payment, SECOND_ATTEMPT), (Service::Payment, DECLINED_BY_OPERATOR)]).await;
    let late = charge(&sold, &format!("{payment}:2"), "pm_card_refund_pending").await;
    let whole = json!({"charge_id": late["id"], "amount_minor": 2_998});
    let refund = ask(&sold.sale, "/v1/refunds", &format!("{payment}:2:refund"), &whole).await;
    assert_eq!(refund["status"], "pending", "{refund}");
    sold.assert_named(AT_ONCE, &[(3, "the provider charged more often than we know of", Id::Payment)]);
}

const NOTED: &str = "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, state, verdict, found_us) VALUES ({payment}, 1, 'REFUND', 'PARTLY_REFUNDED_ELSEWHERE', 'x', 'SETTLED', 'NOTED', 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_by_hand_is_named_until_an_operator_has_noted_it() {
    let sold = Sold::new().await;
    // The first charge of this provider is that of the order.
    let part = json!({"charge_id": "ch_0000000001", "amount_minor": 500});
    ask(&sold.sale, "/v1/refunds", "a-goodwill-refund", &part).await;
    sold.assert_named(AT_ONCE, &[(3, "the provider moved another sum than we did", Id::Payment)]);
    sold.run(&[(Service::Payment, NOTED)]).await;
    sold.assert_holds();
    // Only a part was noted: the refund of the rest is unknown.
    let rest = json!({"charge_id": "ch_0000000001", "amount_minor": 2_498});
    ask(&sold.sale, "/v1/refunds", "the-rest-by-hand", &rest).await;
    sold.assert_named(AT_ONCE, &[(3, "the provider moved another sum than we did", Id::Payment)]);
}

const NOTED_BEFORE: &str = "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, state, verdict, found_us) VALUES ({payment}, 1, 'REFUND', 'REFUNDED_ELSEWHERE', '500 EUR of the 2998 EUR that x captured', 'SETTLED', 'NOTED', 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_noted_when_parts_had_no_kind_of_their_own_hides_no_refund_of_all() {
    let sold = Sold::new().await;
    let part = json!({"charge_id": "ch_0000000001", "amount_minor": 500});
    ask(&sold.sale, "/v1/refunds", "a-goodwill-refund", &part).await;
    sold.run(&[(Service::Payment, NOTED_BEFORE)]).await;
    sold.assert_holds();
    let rest = json!({"charge_id": "ch_0000000001", "amount_minor": 2_498});
    ask(&sold.sale, "/v1/refunds", "the-rest-by-hand", &rest).await;
    sold.assert_named(AT_ONCE, &[(3, "the provider moved another sum than we did", Id::Payment)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_is_pending_or_under_a_strange_key_is_named() {
    let sold = Sold::new().await;
    charge(&sold, "by-hand", "pm_card_ok").await;
    sold.run(&[(Service::Payment, THIRD_ATTEMPT)]).await;
    // It is captured long afterwards.
    charge(&sold, &format!("{}:3", sold.payment()), "pm_card_late").await;
    sold.assert_named(
        AT_ONCE,
        &[
            (3, "the provider still charges for an attempt that has ended", Id::Payment),
            (3, "the provider charged for a payment that we do not know", Id::Text("by-hand")),
        ],
    );
}
