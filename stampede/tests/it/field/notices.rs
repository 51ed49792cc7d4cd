//! Invalid and untrue notices of the provider between good ones, from gateway to goods.

use super::{item, long_case, on_sale};
use crate::{
    sale::{LONG, Sale, eur},
    webhook::{LOOK_UPS, captured, notice, send, signature},
};
use http::StatusCode;
use serde_json::{Value, json};
use stampede_proto::{
    order::v1::{Order, OrderState},
    payment::v1::{GetPaymentRequest, Payment, PaymentState},
};
use stampede_testkit::{BreakAt, MeshBuilder, Process, Proxy, Service, World, as_operator, buyer};
use stampede_vocab::{OrderId, PaymentId, UserId};
use std::time::{Duration, Instant};

/// Orders whose charges the provider has captured, and notifies of.
const GOOD: i32 = 50;
/// Number of repeats of one of the good notices.
const REPEATS: usize = 20;
/// Longest time to process all of them.
const SOON: Duration = Duration::from_secs(5);

/// It is accepted, whether it has an effect or not.
const TAKEN: &[StatusCode] = &[StatusCode::OK];
/// It cannot be read.
const UNREADABLE: &[StatusCode] = &[StatusCode::BAD_REQUEST];
/// Its signature does not fit.
const UNSIGNED: &[StatusCode] = &[StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST];

/// A notice, its signature, and the expected answer.
struct Notice {
    body: String,
    signature: String,
    allowed: &'static [StatusCode],
}

/// An order whose charge is under way, or captured.
struct Paid {
    user: UserId,
    order: Order,
    key: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_24_odd_notices_harm_none_of_fifty_good_ones_and_change_nothing() {
    let Some(_permit) = long_case(24).await else { return };
    let (sale, link) = open().await;
    // So that the notices alone settle charges: else most would be looked up before.
    let look_ups = link.keep_breaking(&[LOOK_UPS], BreakAt::Write);
    let mut paid = Vec::new();
    for _ in 0..GOOD {
        paid.push(pay(&sale).await);
    }
    let mut charges = Vec::new();
    for one in &paid {
        charges.push(captured_notice(&one.key, &captured(&sale, &one.key).await));
    }
    assert!(look_ups.count() > 0, "case 24: no look-up was broken off");
    for one in &paid {
        let payment = payment(&sale, &one.order).await;
        assert_eq!(payment.state(), PaymentState::Open, "case 24: it is left to its notice: {payment:?}");
    }
    // This one is still pending at the provider, whatever a notice says, and is decided in eight seconds.
    let pending = pay(&sale).await;

    let mut notices: Vec<_> = charges.iter().map(|charge| signed(&sale, charge, TAKEN)).collect();
    notices.extend((0..REPEATS).map(|_| signed(&sale, &charges[0], TAKEN)));
    let odd = [odd(&sale, &charges, &pending.key), unsigned(&sale, &charges[3])];
    // Each odd one is between two good ones.
    for (place, notice) in odd.into_iter().flatten().enumerate() {
        notices.insert(place * 2 + 1, notice);
    }
    all_are_answered(&sale, notices).await;
    assert_eq!(payment(&sale, &pending.order).await.state(), PaymentState::Open, "case 24: it is pending");
    for one in &paid {
        let payment = payment(&sale, &one.order).await;
        assert_eq!(payment.state(), PaymentState::Captured, "case 24: {payment:?}");
    }
    look_ups.mend();
    for one in paid.iter().chain([&pending]) {
        sale.until(one.user, &one.order, OrderState::Fulfilled).await;
    }
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

/// A sale with a unit for each, whose provider sends no notices by itself, and the link of the payment service to its
/// database.
async fn open() -> (Sale, Proxy) {
    let world = World::prepared().await.unwrap();
    let link = Proxy::to_url(&world.service_database_url(Service::Payment)).await.unwrap();
    let mesh = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .set(Service::Payment, "STAMPEDE_DATABASE_URL", link.url())
        .start(&world, Process::all())
        .await
        .unwrap();
    let event = on_sale(&mesh, item(eur(1_999), GOOD + 1, 1)).await;
    (Sale { world, mesh, event }, link)
}

/// An order that is paid by a card with a late notice.
async fn pay(sale: &Sale) -> Paid {
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    let order = sale.pay(user, &order, "pm_card_late").await.unwrap();
    let key = format!("{}:1", order.payment_id);
    Paid { user, order, key }
}

async fn payment(sale: &Sale, order: &Order) -> Payment {
    let request = GetPaymentRequest { payment_id: order.payment_id.clone() };
    sale.mesh.payment().get_payment(as_operator(request)).await.unwrap().into_inner().payment.unwrap()
}

/// The provider's notice of a captured charge.
fn captured_notice(key: &str, charge_id: &str) -> Value {
    json!({
        "type": "charge.captured", "key": key, "charge_id": charge_id, "amount_minor": 1_999, "currency": "EUR",
        "status": "captured",
    })
}

fn signed(sale: &Sale, notice: &Value, allowed: &'static [StatusCode]) -> Notice {
    let body = notice.to_string();
    Notice { signature: signature(sale, &body), body, allowed }
}

/// The same notice with another value in one field.
fn with(notice: &Value, field: &str, value: Value) -> Value {
    let mut other = notice.clone();
    other[field] = value;
    other
}

/// Notices that are invalid or untrue. The provider has captured these charges, and not the one under the key.
fn odd(sale: &Sale, charges: &[Value], pending: &str) -> Vec<Notice> {
    let (one, two) = (&charges[1], &charges[2]);
    let nobody = PaymentId::derive(OrderId::try_from_bytes(&[0xAA; 16]).unwrap());
    let refund = |key: &str| json!({"type": "refund.succeeded", "key": key, "charge_id": one["charge_id"]});
    let deep = format!(r#"{{"type":"charge.captured","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let deep = Notice { signature: signature(sale, &deep), body: deep, allowed: UNREADABLE };
    let unreadable = [
        with(one, "charge_id", json!("x".repeat(300))),
        with(one, "charge_id", json!("ch_\u{0}")),
        with(one, "charge_id", json!("ch_\u{1f389}")),
        with(one, "amount_minor", json!("1999")),
        with(one, "amount_minor", json!(1999.5)),
        with(one, "amount_minor", json!(9_223_372_036_854_775_808_u64)),
        json!({"type": "charge.captured"}),
        json!([]),
    ];
    let taken = [
        with(one, "amount_minor", json!(-1_999)),
        with(one, "amount_minor", json!(1)),
        with(one, "charge_id", two["charge_id"].clone()),
        with(&with(one, "type", json!("charge.declined")), "status", json!("declined")),
        captured_notice(&format!("{nobody}:1"), "ch_9"),
        captured_notice(&format!("{}:2", pending.trim_end_matches(":1")), "ch_9"),
        captured_notice(pending, "ch_9"),
        json!({"type": "payout.paid"}),
        refund(&format!("{}:refund", one["key"].as_str().unwrap())),
        refund("by-hand"),
    ];
    let unreadable = unreadable.iter().map(|notice| signed(sale, notice, UNREADABLE));
    let taken = taken.iter().map(|notice| signed(sale, notice, TAKEN));
    unreadable.chain(taken).chain([deep]).collect()
}

/// A good notice under signatures that are not its own.
fn unsigned(sale: &Sale, charge: &Value) -> Vec<Notice> {
    let body = charge.to_string();
    let own = signature(sale, &body);
    let signatures = [own.to_uppercase(), own.replace("v1=", "v1= "), String::new(), signature(sale, "{}")];
    signatures.into_iter().map(|signature| Notice { body: body.clone(), signature, allowed: UNSIGNED }).collect()
}

/// Posts all of them at once.
async fn all_are_answered(sale: &Sale, notices: Vec<Notice>) {
    let started = Instant::now();
    let mut posted = Vec::new();
    for Notice { body, signature, allowed } in notices {
        let answer = tokio::spawn(send(notice(sale, "application/json", &body, &signature)));
        posted.push((body, allowed, answer));
    }
    for (body, allowed, answer) in posted {
        let (status, problem) = answer.await.unwrap();
        let body: String = body.chars().take(200).collect();
        assert!(allowed.contains(&status), "case 24: {status} {problem} for {body}");
    }
    assert!(started.elapsed() < SOON, "case 24: it took {:?}", started.elapsed());
}
