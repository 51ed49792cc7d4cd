//! One purchase and its failures, from the event's creation to the audit.

use crate::{
    sale::{LONG, Sale, eur, fresh, stampede_reason},
    webhook::pay_late,
};
use stampede_proto::{
    coupon::v1::CouponState,
    order::v1::{CancelOrderRequest, OrderState, RefundOrderRequest},
    r#type::v1::DeclineCode,
};
use stampede_testkit::{MeshBuilder, Process, Service, as_buyer, as_operator, buyer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_gets_the_goods_the_gift_and_the_discount() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let order = sale.bought(user, &[(0, 2), (1, 1)], &coupon.coupon_id).await;
    assert_eq!(order.total, eur(3 * 1_999 - 1_000));
    let titles: Vec<_> = order.goods.iter().map(|goods| goods.title.as_str()).collect();
    assert_eq!(titles, ["a kettle", "a rarity", "a mug"]);
    sale.until_left(0, 8, 1).await;
    sale.until_left(1, 0, 0).await;
    sale.until_coupon(user, &coupon, CouponState::Used).await;
    let refused = sale.place(buyer(), &[(1, 1)], "").await.unwrap_err();
    assert_eq!(stampede_reason(&refused), "SOLD_OUT");
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_expired_and_refunded_orders_return_in_full() {
    let sale = Sale::open(LONG).await;
    let (one, two, three) = (buyer(), buyer(), buyer());
    let coupon = sale.claim(one).await;

    let cancelled = sale.placed(one, &[(0, 3)], &coupon.coupon_id).await;
    let request = CancelOrderRequest { order_id: cancelled.order_id.clone(), request_id: "c".to_owned() };
    sale.mesh.order().cancel_order(as_buyer(one, request)).await.unwrap();
    sale.until_coupon(one, &coupon, CouponState::Issued).await;
    sale.until_left(0, 10, 2).await;

    let refunded = sale.bought(two, &[(0, 1)], "").await;
    let request = RefundOrderRequest { order_id: refunded.order_id.clone(), request_id: "r".to_owned() };
    sale.mesh.order().refund_order(as_operator(request)).await.unwrap();
    sale.until(two, &refunded, OrderState::Refunded).await;

    let expired = sale.placed(three, &[(1, 1)], "").await;
    sale.time_is_over(&expired).await;
    sale.until(three, &expired, OrderState::Expired).await;
    sale.until_left(0, 10, 2).await;
    sale.until_left(1, 1, 0).await;

    let limit_is_free_again = sale.placed(three, &[(1, 1)], "").await;
    sale.time_is_over(&limit_is_free_again).await;
    sale.until(three, &limit_is_free_again, OrderState::Expired).await;
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_card_is_tried_again_and_a_time_out_is_asked_for_not_charged_anew() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    sale.pay(user, &order, "pm_card_declined").await.unwrap();
    let declined = sale.until(user, &order, OrderState::AwaitingPayment).await;
    assert_eq!((declined.payment_attempts, declined.last_decline()), (1, DeclineCode::CardDeclined));
    sale.pay(user, &order, "pm_card_ok").await.unwrap();
    sale.until(user, &order, OrderState::Fulfilled).await;

    for card in ["pm_card_timeout_captured", "pm_card_timeout_lost"] {
        let user = buyer();
        let order = sale.placed(user, &[(0, 1)], "").await;
        sale.pay(user, &order, card).await.unwrap();
        sale.until(user, &order, OrderState::Fulfilled).await;
    }
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_that_comes_after_the_deadline_buys_the_units_again_or_goes_back() {
    // Later than somebody else takes to buy what has expired.
    let late = MeshBuilder::default().set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", 6_000);
    let sale = Sale::open_on(late, LONG).await;
    let (first, second, other) = (buyer(), buyer(), buyer());
    let kettle = sale.placed(first, &[(0, 1)], "").await;
    let rarity = sale.placed(second, &[(1, 1)], "").await;
    pay_late(&sale, first, &kettle).await;
    pay_late(&sale, second, &rarity).await;
    sale.time_is_over(&kettle).await;
    sale.time_is_over(&rarity).await;
    sale.until(first, &kettle, OrderState::Expired).await;
    sale.until(second, &rarity, OrderState::Expired).await;
    // The one rarity is gone before the money comes.
    sale.until_left(1, 1, 0).await;
    sale.bought(other, &[(1, 1)], "").await;
    sale.until(first, &kettle, OrderState::Fulfilled).await;
    sale.until(second, &rarity, OrderState::Refunded).await;
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_of_which_a_restored_order_does_not_know_buys_the_units_again_or_goes_back() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let (plain, with_coupon) =
        (sale.bought(user, &[(0, 1)], "").await, sale.bought(user, &[(0, 1)], &coupon.coupon_id).await);
    sale.until_coupon(user, &coupon, CouponState::Used).await;
    // The database of order is restored to before their payments; the offsets of its consumers are not.
    let orders = sale.world.database(Service::Order).await.unwrap();
    let restore =
        "UPDATE orders SET state = 'PAYING', version = version - 1, fulfilled_at_us = NULL WHERE state = 'FULFILLED'";
    let restored = sqlx::query(restore).execute(&mut *orders.acquire().await.unwrap()).await.unwrap();
    assert_eq!(restored.rows_affected(), 2);
    sale.time_is_over(&plain).await;
    sale.time_is_over(&with_coupon).await;
    sale.until(user, &plain, OrderState::Fulfilled).await;
    sale.until(user, &with_coupon, OrderState::Refunded).await;
    sale.until_left(0, 9, 1).await;
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_the_same_order_and_another_body_is_refused() {
    let sale = Sale::open(LONG).await;
    let (user, request_id) = (buyer(), fresh());
    let first = sale.place_as(user, &request_id, &[(0, 1)], "").await.unwrap();
    let repeat = sale.place_as(user, &request_id, &[(0, 1)], "").await.unwrap();
    assert_eq!(first.order_id, repeat.order_id);
    let other_body = sale.place_as(user, &request_id, &[(0, 2)], "").await.unwrap_err();
    assert_eq!(stampede_reason(&other_body), "REQUEST_ID_REUSED");
    sale.until(user, &first, OrderState::AwaitingPayment).await;
    let repeat = sale.place_as(user, &request_id, &[(0, 1)], "").await.unwrap();
    assert_eq!(first.order_id, repeat.order_id);
    sale.until_left(0, 9, 1).await;
    sale.audit();
}
