//! Messages of ended orders, published again with new ids while their reader is killed.

use super::{
    kafka::{is_at_the_end, until_each},
    long_case,
};
use crate::{
    history::History,
    sale::{Sale, fresh},
};
use stampede_proto::{
    coupon::v1::CouponState,
    order::v1::{CancelOrderRequest, Order, OrderState},
};
use stampede_testkit::{Service, as_buyer, buyer, eventually};
use stampede_vocab::UserId;
use std::time::Duration;

/// Long enough for two declines.
const PAY_WINDOW: Duration = Duration::from_secs(8);
/// Units and gifts of the item.
const UNITS: i32 = 10;
const GIFTS: i32 = 2;
/// The messages by which orders return units, gifts and coupons.
const ENDS: [&str; 2] = ["OrderCancelled", "OrderExpired"];
const READERS: [Service; 3] = [Service::Inventory, Service::Coupon, Service::Payment];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_22_what_is_told_again_under_new_ids_while_inventory_dies_comes_back_once() {
    let Some(_permit) = long_case(22).await else { return };
    let mut sale = Sale::open(PAY_WINDOW).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let declined = sale.placed(user, &[(0, 1)], &coupon.coupon_id).await;
    for _ in 0..2 {
        sale.pay(user, &declined, "pm_card_declined").await.unwrap();
        sale.until(user, &declined, OrderState::AwaitingPayment).await;
    }
    cancel(&sale, user, &declined).await;
    give_up(&sale).await;
    sale.until_coupon(user, &coupon, CouponState::Issued).await;
    all_but_this_is_left(&sale, 0).await;
    sale.audit();

    let ends = History::of_names(&sale.world, Service::Order, &ENDS);
    assert_eq!(ends.count(), 5, "case 22: each order has published its end once");
    for _ in 0..2 {
        ends.publish_as_new(&sale.world).await;
        sale.mesh.kill_9(Service::Inventory).unwrap();
        ends.publish_as_new(&sale.world).await;
        sale.mesh.restart(Service::Inventory).await.unwrap();
    }
    all_is_read(&sale).await;
    all_but_this_is_left(&sale, 0).await;

    // One order uses the coupon, and the end of an earlier one does not release it.
    let bought = sale.bought(user, &[(0, 1)], &coupon.coupon_id).await;
    sale.until_coupon(user, &coupon, CouponState::Used).await;
    ends.publish_as_new(&sale.world).await;
    all_is_read(&sale).await;
    sale.until_coupon(user, &coupon, CouponState::Used).await;
    all_but_this_is_left(&sale, 1).await;
    assert_eq!(sale.get(user, &bought).await.state(), OrderState::Fulfilled);
    // The audit names the messages that are in Kafka and in no outbox, under the seventh promise. No other is broken.
    let audit = sale.run_audit(&[]);
    assert!(audit.promises.iter().all(|promise| promise.holds == (promise.number != 7)), "case 22: {audit:#?}");
    assert!(audit.still_moving.is_empty(), "case 22: {audit:#?}");
}

/// Two buyers who cancel, and two whose orders expire.
async fn give_up(sale: &Sale) {
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (cancels, waits) = (buyer(), buyer());
        let cancelled = sale.placed(cancels, &[(0, 2)], "").await;
        cancel(sale, cancels, &cancelled).await;
        waiting.push((waits, sale.placed(waits, &[(0, 1)], "").await));
    }
    for (user, order) in waiting {
        sale.until(user, &order, OrderState::Expired).await;
    }
}

async fn cancel(sale: &Sale, user: UserId, order: &Order) {
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: fresh() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
}

/// Waits until the readers of the topic of orders have no lag.
async fn all_is_read(sale: &Sale) {
    until_each(&sale.world, READERS, "case 22: all is read", is_at_the_end).await;
}

/// Waits until so many units are taken, each with a gift, and all others are left. Checks that there are never more
/// than at first.
async fn all_but_this_is_left(sale: &Sale, taken: i32) {
    eventually(&format!("case 22: {taken} units are taken"), || async {
        let stock = sale.stock(0).await;
        assert!(stock.left_units <= UNITS && stock.left_gift_units <= GIFTS, "case 22: {stock:?}");
        let found = (stock.left_units, stock.committed_units, stock.held_units, stock.left_gift_units);
        (found == (UNITS - taken, taken, 0, GIFTS - taken)).then_some(())
    })
    .await;
}
