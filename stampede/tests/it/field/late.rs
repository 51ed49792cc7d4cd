//! Payments after the deadline of their order: within the grace, and long after it has expired.

use super::{item, on_sale, until_open, visitor::Visitor, wish};
use crate::{
    roles::token,
    sale::{Sale, eur, in_us},
    webhook::captured,
};
use http::StatusCode;
use stampede_proto::{
    event::v1::{CreateEventRequest, EventState, GetEventRequest},
    order::v1::{Order, OrderState},
    payment::v1::GetPaymentRequest,
};
use stampede_testkit::{MeshBuilder, Process, Service, World, as_operator, buyer, eventually};
use stampede_vocab::{PaymentId, UserId};
use std::time::Duration;
use tokio::time::sleep;

/// Shorter than the bank takes for a late card.
const PAY_WINDOW: Duration = Duration::from_secs(3);
/// Time until an event closes: after its orders expire, and before the money comes.
const CLOSES_IN: Duration = Duration::from_millis(9_500);
const MONEY_COMES_IN: Duration = Duration::from_secs(10);
/// Price of one unit.
const PRICE: i64 = 1_999;

/// Orders so many kettles, pays late, and waits until the order has expired.
async fn expired(sale: &Sale, user: UserId, units: i32) -> Order {
    let order = sale.placed(user, &[(0, units)], "").await;
    sale.pay(user, &order, "pm_card_late").await.unwrap();
    sale.until(user, &order, OrderState::Expired).await
}

/// Waits until the whole capture of an order is refunded.
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
    // The limit is three a buyer.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_23_money_that_comes_when_the_event_has_closed_buys_the_units_again() {
    let settings = MeshBuilder::default().set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", MONEY_COMES_IN.as_millis());
    let mut sale = Sale::open_on(settings, PAY_WINDOW).await;
    let request = CreateEventRequest { close_time: in_us(CLOSES_IN), ..wish(item(eur(PRICE), 10, 3)) };
    sale.event = sale.mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    until_open(&sale.mesh, &sale.event).await;
    let user = buyer();
    let late = expired(&sale, user, 1).await;
    // The process that waits for the bank is killed meanwhile.
    sale.mesh.kill_9(Service::Payment).unwrap();
    eventually("case 23: the event has closed", || async {
        let request = GetEventRequest { event_id: sale.event.event_id.clone() };
        let event = sale.mesh.event().get_event(request).await.ok()?.into_inner().event?;
        (event.state() == EventState::Closed).then_some(())
    })
    .await;
    assert_eq!(sale.get(user, &late).await.state(), OrderState::Expired, "case 23: the money has not come yet");
    sale.mesh.restart(Service::Payment).await.unwrap();
    sale.until(user, &late, OrderState::Fulfilled).await;
    sale.audit();
}

/// Its charge is finished by another process once the lease of the first is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_begun_in_time_buys_although_its_process_dies_before_the_deadline() {
    let world = World::prepared().await.unwrap();
    // The grace is the default, and no notice of the provider arrives.
    let mesh = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW.as_millis());
    let mesh = mesh.set(Process::Sandbox, "STAMPEDE_SANDBOX_WEBHOOK_URL", "http://127.0.0.1:9/v1/payments:webhook");
    let mesh = mesh.start(&world, Process::all()).await.unwrap();
    let event = on_sale(&mesh, item(eur(PRICE), 10, 3)).await;
    let mut sale = Sale { world, mesh, event };
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    let paying = sale.pay(user, &order, "pm_card_timeout_captured").await.unwrap();
    captured(&sale, &format!("{}:1", paying.payment_id)).await;
    sale.mesh.kill_9(Service::Payment).unwrap();
    sleep(PAY_WINDOW).await;
    sale.mesh.restart(Service::Payment).await.unwrap();

    let fulfilled = sale.until(user, &order, OrderState::Fulfilled).await;
    assert_eq!(fulfilled.version, paying.version + 1, "it has not expired in between: {fulfilled:?}");
    sale.audit();
}
