//! A whole sale that is cancelled: with orders that are not paid, that are paid, and whose payments are under way.

use crate::sale::{LONG, Sale, stampede_reason};
use stampede_proto::{
    coupon::v1::CouponState,
    event::v1::{CancelEventRequest, Event, EventState, GetEventRequest, PaidOrders},
    order::v1::{Cancellation, GetCancellationRequest, Order, OrderState},
};
use stampede_testkit::{Service, as_operator, buyer, eventually};
use stampede_vocab::{Timestamp, UserId};

async fn cancel(sale: &Sale, paid_orders: PaidOrders) -> Event {
    let request = CancelEventRequest { event_id: sale.event.event_id.clone(), paid_orders: paid_orders.into() };
    sale.mesh.event().cancel_event(as_operator(request)).await.unwrap().into_inner().event.unwrap()
}

/// The states of the orders, once all have ended.
async fn settled(sale: &Sale) -> Cancellation {
    eventually("every order has ended", || async {
        let request = GetCancellationRequest { event_id: sale.event.event_id.clone() };
        let answer = sale.mesh.order().get_cancellation(as_operator(request)).await.ok()?;
        answer.into_inner().cancellation.filter(|cancellation| cancellation.settle_time.is_some())
    })
    .await
}

/// A number from the schema of a service.
async fn number(sale: &Sale, service: Service, sql: &'static str) -> i64 {
    let db = sale.world.database(service).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut *db.acquire().await.unwrap()).await.unwrap()
}

/// Lets the event close now, however long it would be open.
async fn close(sale: &Sale) {
    let stock = sale.world.database(Service::Inventory).await.unwrap();
    let events = sale.world.database(Service::Event).await.unwrap();
    // The audit counts from then on how late the event has closed.
    let now = Timestamp::now().micros();
    for (db, sql) in [
        (&stock, "UPDATE stock SET closes_at_us = ?"),
        (&events, "UPDATE events SET closes_at_us = ?, due_at_us = closes_at_us"),
    ] {
        sqlx::query(sql).bind(now).execute(&mut *db.acquire().await.unwrap()).await.unwrap();
    }
    eventually("the event has closed", || async {
        let request = GetEventRequest { event_id: sale.event.event_id.clone() };
        let event = sale.mesh.event().get_event(request).await.ok()?.into_inner().event?;
        (event.state() == EventState::Closed).then_some(())
    })
    .await;
}

async fn all_reach(sale: &Sale, orders: &[(UserId, Order)], state: OrderState) {
    for (user, order) in orders {
        sale.until(*user, order, state).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_their_money_back_once_though_processes_are_killed() {
    let mut sale = Sale::open(LONG).await;
    let with_coupon = buyer();
    let coupon = sale.claim(with_coupon).await;
    let mut paid = vec![(with_coupon, sale.bought(with_coupon, &[(0, 1)], &coupon.coupon_id).await)];
    let (mut unpaid, mut under_way) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let user = buyer();
        paid.push((user, sale.bought(user, &[(0, 1)], "").await));
        let user = buyer();
        unpaid.push((user, sale.placed(user, &[(0, 1)], "").await));
    }
    for card in ["pm_card_timeout_captured", "pm_card_declined"] {
        let user = buyer();
        let order = sale.placed(user, &[(0, 1)], "").await;
        under_way.push((user, sale.pay(user, &order, card).await.unwrap()));
    }

    let cancelled = cancel(&sale, PaidOrders::Refund).await;
    assert_eq!((cancelled.state(), cancelled.paid_orders()), (EventState::Cancelled, PaidOrders::Refund));
    let refused = sale.place(buyer(), &[(0, 1)], "").await.unwrap_err();
    assert_eq!(stampede_reason(&refused), "EVENT_CLOSED", "it was answered, so nothing is sold any more");
    for service in [Service::Order, Service::Payment, Service::Order] {
        sale.mesh.kill_9(service).unwrap();
        sale.mesh.restart(service).await.unwrap();
    }

    // The provider captures the first of them, and the second one is declined.
    paid.push(under_way.remove(0));
    unpaid.append(&mut under_way);
    all_reach(&sale, &unpaid, OrderState::Cancelled).await;
    all_reach(&sale, &paid, OrderState::Refunded).await;
    sale.until_coupon(with_coupon, &coupon, CouponState::Issued).await;
    let Cancellation { ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders, .. } =
        settled(&sale).await;
    assert_eq!([ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders], [3, 0, 4, 4, 0]);
    assert_eq!(number(&sale, Service::Payment, "SELECT COUNT(*) FROM refunds").await, 4);
    sale.audit();
    let taken = "SELECT CAST(SUM(committed_units + gift_committed_units) AS SIGNED) FROM stock";
    assert_eq!(number(&sale, Service::Inventory, taken).await, 0);
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paid_orders_are_kept_until_the_operator_wants_them_refunded() {
    let sale = Sale::open(LONG).await;
    let (payer, waiter) = (buyer(), buyer());
    let paid = sale.bought(payer, &[(0, 1)], "").await;
    let unpaid = sale.placed(waiter, &[(0, 1)], "").await;

    cancel(&sale, PaidOrders::Keep).await;
    sale.until(waiter, &unpaid, OrderState::Cancelled).await;
    let kept = settled(&sale).await;
    assert_eq!((kept.kept_orders, kept.ended_orders, kept.refunds_begun), (1, 1, 0));
    assert_eq!(sale.get(payer, &paid).await.state(), OrderState::Fulfilled);
    sale.audit();

    cancel(&sale, PaidOrders::Refund).await;
    sale.until(payer, &paid, OrderState::Refunded).await;
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_their_money_back_once_though_the_event_had_closed() {
    let sale = Sale::open(LONG).await;
    let (with_coupon, payer, waiter) = (buyer(), buyer(), buyer());
    let coupon = sale.claim(with_coupon).await;
    let paid = [
        (with_coupon, sale.bought(with_coupon, &[(0, 1)], &coupon.coupon_id).await),
        (payer, sale.bought(payer, &[(0, 2)], "").await),
    ];
    let unpaid = [(waiter, sale.placed(waiter, &[(1, 1)], "").await)];
    close(&sale).await;
    let waiting = sale.get(waiter, &unpaid[0].1).await;
    assert_eq!(waiting.state(), OrderState::AwaitingPayment, "a sale that closes ends no order");

    let cancelled = cancel(&sale, PaidOrders::Refund).await;
    assert_eq!((cancelled.state(), cancelled.paid_orders()), (EventState::Cancelled, PaidOrders::Refund));
    assert_eq!(cancel(&sale, PaidOrders::Refund).await, cancelled, "a repeat changes nothing");
    all_reach(&sale, &unpaid, OrderState::Cancelled).await;
    all_reach(&sale, &paid, OrderState::Refunded).await;
    sale.until_coupon(with_coupon, &coupon, CouponState::Issued).await;
    let Cancellation { ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders, .. } =
        settled(&sale).await;
    assert_eq!([ended_orders, kept_orders, refunds_begun, refunds_done, remaining_orders], [1, 0, 2, 2, 0]);
    assert_eq!(number(&sale, Service::Payment, "SELECT COUNT(*) FROM refunds").await, 2);
    sale.audit();
    let taken = "SELECT CAST(SUM(committed_units + gift_committed_units) AS SIGNED) FROM stock";
    assert_eq!(number(&sale, Service::Inventory, taken).await, 0);
    sale.mesh.stop().await.unwrap();
}
