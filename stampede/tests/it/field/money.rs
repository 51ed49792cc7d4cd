//! Amounts of any currency and size, orders with nothing to pay, and returns at the last moment.

use super::{announced, item, on_sale, until_open, visitor::Visitor, wish};
use crate::{
    roles::token,
    sale::{LONG, Sale, eur, fresh, stampede_reason},
};
use http::StatusCode;
use serde_json::Value;
use stampede_proto::{
    coupon::v1::CouponState,
    order::v1::{CancelOrderRequest, Order, OrderState, RefundOrderRequest},
    payment::v1::{GetPaymentRequest, Payment},
    r#type::v1::Money,
};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, as_buyer, as_operator, buyer, eventually};
use stampede_vocab::{PaymentId, Timestamp, UserId};
use std::time::Duration;
use tonic::Code;

/// Currencies without decimals, with three and with two.
const CURRENCIES: [&str; 5] = ["JPY", "KRW", "KWD", "BHD", "EUR"];
/// The first whole number that a float of 64 bits does not have.
const NO_FLOAT: i64 = 9_007_199_254_740_993;
/// Payment window of the orders that are cancelled at their deadline.
const PAY_WINDOW: Duration = Duration::from_secs(4);
/// Orders that are cancelled at their deadline.
const ORDERS: i32 = 9;

async fn mesh(pay_window: Duration) -> (World, Mesh) {
    let world = World::prepared().await.unwrap();
    let mesh = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", pay_window.as_millis())
        .start(&world, Process::all())
        .await
        .unwrap();
    (world, mesh)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_are_exact_in_every_currency_and_nothing_is_asked_for_nothing() {
    let (world, mesh) = mesh(LONG).await;
    let event = on_sale(&mesh, item(eur(NO_FLOAT), 10, 3)).await;
    let mut sale = Sale { world, mesh, event };
    case_14_an_amount_that_no_float_has_is_exact_everywhere(&sale).await;
    case_21_amounts_are_never_scaled_and_what_is_no_currency_is_refused(&mut sale).await;
    case_20_who_has_nothing_to_pay_is_not_charged_and_has_the_coupon_back(&mut sale).await;
    sale.audit();
}

async fn case_14_an_amount_that_no_float_has_is_exact_everywhere(sale: &Sale) {
    let (_, order) = is_bought_for(sale, eur(NO_FLOAT)).await;
    let operator = token(&sale.mesh, "operator");
    let gateway = Visitor::of(sale.mesh.url(Process::Gateway));
    let shown = gateway.get(&format!("/v1/orders/{}", order.order_id), &operator).await;
    assert_eq!(shown.status, StatusCode::OK, "case 14: {shown:?}");
    assert_eq!(shown.json["total"]["minor_units"], NO_FLOAT.to_string(), "case 14: a text, which no reader rounds");
}

async fn case_21_amounts_are_never_scaled_and_what_is_no_currency_is_refused(sale: &mut Sale) {
    let mut events = Vec::new();
    for currency in CURRENCIES {
        let price = Money { minor_units: 1_999, currency: currency.to_owned() };
        events.push((announced(&sale.mesh, item(Some(price.clone()), 10, 3)).await, price));
    }
    for (event, price) in events {
        until_open(&sale.mesh, &event).await;
        sale.event = event;
        let (user, order) = is_bought_for(sale, Some(price.clone())).await;
        refund(sale, user, &order).await;
        let refunded = payment(sale, &order).await.refunded;
        assert_eq!(refunded, Some(price), "case 21: what is given back");
        let charge = charge(sale, &order).await.unwrap();
        assert_eq!(charge["refunded_minor"], 1_999, "case 21: what the provider gave back: {charge}");
    }
    for currency in ["ZZZ", "QQQ", "eur", "EURO", "E1R", ""] {
        let price = Money { minor_units: 1_999, currency: currency.to_owned() };
        let answer = sale.mesh.event().create_event(as_operator(wish(item(Some(price), 10, 3)))).await;
        let Err(refused) = answer else { panic!("case 21: {currency:?} is taken for a currency") };
        assert_eq!(refused.code(), Code::InvalidArgument, "case 21: {currency:?}: {refused:?}");
    }
}

/// Buys a unit at this price, and checks that order, payment and provider have the same amount. Returns the buyer and
/// the order.
async fn is_bought_for(sale: &Sale, price: Option<Money>) -> (UserId, Order) {
    let user = buyer();
    let order = sale.bought(user, &[(0, 1)], "").await;
    assert_eq!((&order.total, &order.subtotal), (&price, &price), "what the order costs");
    let Payment { amount, captured, .. } = payment(sale, &order).await;
    assert_eq!((&amount, &captured), (&price, &price), "what is paid");
    let charge = charge(sale, &order).await.unwrap();
    let price = price.unwrap();
    assert_eq!(charge["amount_minor"], price.minor_units, "what the provider has charged: {charge}");
    assert_eq!(charge["currency"], price.currency, "what the provider has charged: {charge}");
    (user, order)
}

async fn case_20_who_has_nothing_to_pay_is_not_charged_and_has_the_coupon_back(sale: &mut Sale) {
    // The coupon is worth ten.
    sale.event = on_sale(&sale.mesh, item(eur(999), 10, 3)).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let cancelled = sale.placed(user, &[(0, 1)], &coupon.coupon_id).await;
    assert_eq!((&cancelled.total, &cancelled.discount), (&eur(0), &eur(999)), "case 20: never below nothing");
    let request = CancelOrderRequest { order_id: cancelled.order_id.clone(), request_id: fresh() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
    sale.until_coupon(user, &coupon, CouponState::Issued).await;

    let expired = sale.placed(user, &[(0, 1)], &coupon.coupon_id).await;
    sale.time_is_over(&expired).await;
    sale.until(user, &expired, OrderState::Expired).await;
    sale.until_coupon(user, &coupon, CouponState::Issued).await;

    let order = sale.placed(user, &[(0, 1)], &coupon.coupon_id).await;
    sale.pay(user, &order, "pm_card_declined").await.unwrap();
    sale.until(user, &order, OrderState::Fulfilled).await;
    sale.until_coupon(user, &coupon, CouponState::Used).await;
    refund(sale, user, &order).await;
    sale.until_coupon(user, &coupon, CouponState::Issued).await;
    for unpaid in [&cancelled, &expired, &order] {
        assert_eq!(charge(sale, unpaid).await, None, "case 20: the provider was asked for nothing");
    }

    // The coupon leaves the least that can be paid.
    sale.event = on_sale(&sale.mesh, item(eur(1_001), 10, 3)).await;
    let coupon = sale.claim(user).await;
    let order = sale.bought(user, &[(0, 1)], &coupon.coupon_id).await;
    assert_eq!((&order.total, &order.discount), (&eur(1), &eur(1_000)), "case 20: one cent is left");
    assert_eq!(charge(sale, &order).await.unwrap()["amount_minor"], 1, "case 20: what the provider has charged");
}

async fn refund(sale: &Sale, user: UserId, order: &Order) {
    let request = RefundOrderRequest { order_id: order.order_id.clone(), request_id: fresh() };
    sale.mesh.order().refund_order(as_operator(request)).await.unwrap();
    sale.until(user, order, OrderState::Refunded).await;
}

fn payment_id(order: &Order) -> String {
    PaymentId::derive(order.order_id.parse().unwrap()).to_string()
}

async fn payment(sale: &Sale, order: &Order) -> Payment {
    let request = GetPaymentRequest { payment_id: payment_id(order) };
    sale.mesh.payment().get_payment(as_operator(request)).await.unwrap().into_inner().payment.unwrap()
}

/// Returns the provider's record of the first attempt, if there is one.
async fn charge(sale: &Sale, order: &Order) -> Option<Value> {
    let provider = Visitor::of(sale.mesh.url(Process::Sandbox));
    let answer = provider.get(&format!("/v1/charges/by-key/{}:1", payment_id(order)), "").await;
    (answer.status != StatusCode::NOT_FOUND).then_some(answer.json)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_22_what_is_cancelled_again_and_again_at_its_deadline_comes_back_once() {
    let (world, mesh) = mesh(PAY_WINDOW).await;
    let event = on_sale(&mesh, item(eur(1_999), ORDERS, 1)).await;
    let sale = Sale { world, mesh, event };
    let mut placed = Vec::new();
    for _ in 0..ORDERS {
        let user = buyer();
        placed.push((user, sale.place(user, &[(0, 1)], "").await.unwrap()));
    }
    until_all_are_taken(&sale, placed[0].0, &placed[0].1).await;
    // From 4 ms before the deadline to as much after it.
    for (offset_ms, (user, order)) in (-4..).zip(&placed) {
        until_deadline(order, offset_ms).await;
        let cancel = || cancel(&sale, *user, order);
        let (one, two, three) = tokio::join!(cancel(), cancel(), cancel());
        assert!(one && two && three, "{} is refused for another reason", order.order_id);
    }
    for (user, order) in &placed {
        eventually(&format!("{} has ended", order.order_id), || async {
            let state = sale.get(*user, order).await.state();
            [OrderState::Cancelled, OrderState::Expired].contains(&state).then_some(())
        })
        .await;
    }
    sale.until_left(0, ORDERS, 0).await;
    sale.audit();
}

/// Waits until no unit is left; or until the first order has ended, on a machine that stood still for so long.
async fn until_all_are_taken(sale: &Sale, user: UserId, first: &Order) {
    eventually("all units are taken", || async {
        let has_ended = sale.get(user, first).await.state() != OrderState::AwaitingPayment;
        (has_ended || sale.stock(0).await.left_units == 0).then_some(())
    })
    .await;
}

/// Waits until so many milliseconds after the deadline of an order, or before it.
async fn until_deadline(order: &Order, offset_ms: i64) {
    let deadline = order.pay_deadline.unwrap();
    let deadline_us = deadline.seconds * 1_000_000 + i64::from(deadline.nanos / 1_000);
    let left_us = deadline_us + offset_ms * 1_000 - Timestamp::now().micros();
    tokio::time::sleep(Duration::from_micros(u64::try_from(left_us).unwrap_or(0))).await;
}

/// Cancels under a new `request_id`. Returns whether it took effect, or was refused for the state of the order.
async fn cancel(sale: &Sale, user: UserId, order: &Order) -> bool {
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: fresh() };
    match sale.mesh.order().cancel_order(as_buyer(user, request)).await {
        Ok(_) => true,
        Err(refused) => refused.code() == Code::FailedPrecondition && !stampede_reason(&refused).is_empty(),
    }
}
