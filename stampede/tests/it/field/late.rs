//! Money that comes when its order has long expired.

use super::visitor::Visitor;
use crate::{
    roles::token,
    sale::{Sale, eur},
};
use http::StatusCode;
use stampede_proto::{
    order::v1::{Order, OrderState},
    payment::v1::GetPaymentRequest,
};
use stampede_testkit::{Process, as_operator, buyer};
use stampede_vocab::{PaymentId, UserId};
use std::time::Duration;

/// Shorter than the bank takes for a late card.
const PAY_WINDOW: Duration = Duration::from_secs(3);
/// A unit price as the sale has it.
const PRICE: i64 = 1_999;

/// Orders so many kettles and pays late, and waits until the order has expired.
async fn expired(sale: &Sale, user: UserId, units: i32) -> Order {
    let order = sale.placed(user, &[(0, units)], "").await;
    sale.pay(user, &order, "pm_card_late").await.unwrap();
    sale.until(user, &order, OrderState::Expired).await
}

/// Waits until all that was taken for an order is given back.
async fn until_refunded(sale: &Sale, user: UserId, order: &Order, units: i32) {
    sale.until(user, order, OrderState::Refunded).await;
    let payment_id = PaymentId::derive(order.order_id.parse().unwrap()).to_string();
    let request = GetPaymentRequest { payment_id };
    let payment = sale.mesh.payment().get_payment(as_operator(request)).await.unwrap().into_inner().payment.unwrap();
    let all = eur(PRICE * i64::from(units));
    assert_eq!((&payment.captured, &payment.refunded), (&all, &all), "case 23: {payment:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_23_money_that_comes_when_the_buyer_has_all_that_they_may_goes_back() {
    let sale = Sale::open(PAY_WINDOW).await;
    let user = buyer();
    // Three are what a buyer may have.
    let late = expired(&sale, user, 3).await;
    sale.until_left(0, 10, 2).await;
    sale.bought(user, &[(0, 3)], "").await;
    until_refunded(&sale, user, &late, 3).await;
    sale.until_left(0, 7, 1).await;
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_23_money_that_comes_when_the_event_was_cancelled_goes_back() {
    let sale = Sale::open(PAY_WINDOW).await;
    let user = buyer();
    let late = expired(&sale, user, 1).await;
    let cancel = format!("/v1/events/{}:cancel", sale.event.event_id);
    let operator = token(&sale.mesh, "operator");
    let answer = Visitor::of(sale.mesh.url(Process::Gateway)).post(&cancel, &operator, "application/json", "{}").await;
    assert_eq!(answer.status, StatusCode::OK, "case 23: {answer:?}");
    until_refunded(&sale, user, &late, 1).await;
    sale.audit();
}
