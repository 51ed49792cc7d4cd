//! Orders that come to nothing: everything returns, exactly once.

use crate::sale::{LONG, Sale, UNITS, refusal, refused};
use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use stampede_proto::order::v1::{CancelOrderRequest, Order, OrderState};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, as_operator, buyer};
use std::time::Duration;

/// Short enough to wait for.
const A_MOMENT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_cancelled_order_gives_everything_back_once() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 3), (sale.lamp, 1)])).await?;
    let cancelled = sale.cancel(&order, "c").await?;
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    assert_eq!(sale.cancel(&order, "c").await?.version, cancelled.version, "a repeat changes nothing");
    let other = sale.cancel(&order, "d").await.unwrap_err();
    assert_eq!(refusal(&other), refused(Reason::OrderNotCancellable, "order_id"));
    assert_eq!(Problem::from_status(&other).metadata()["state"], "CANCELLED");
    assert_eq!(sale.settles_at(sale.kettle, UNITS).await.left_gift_units, 1);
    sale.settles_at(sale.lamp, UNITS).await;
    assert_eq!(sale.published(&order).await?.last().map(|(name, _)| name.as_str()), Some("OrderCancelled"));
    let pay = sale.pay(&order, "p").await.unwrap_err();
    assert_eq!(refusal(&pay), refused(Reason::OrderNotPayable, "order_id"));
    sale.mesh.stop().await
}

#[tokio::test]
async fn impatient_clicks_on_cancel_end_it_once_and_two_windows_know_who_did() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let clicks = try_join_all((0..20).map(|_| sale.cancel(&order, "c"))).await?;
    assert!(clicks.iter().all(|click| *click == clicks[0]), "{clicks:?}");
    let published = sale.published(&order).await?;
    assert_eq!(published.iter().filter(|(name, _)| name == "OrderCancelled").count(), 1);

    let order = sale.payable_lamp(buyer()).await?;
    let windows = join_all((0..20).map(|n| sale.cancel(&order, ["c", "d"][n % 2]))).await;
    let (won, lost): (Vec<_>, Vec<_>) = windows.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (10, 10));
    for status in lost.into_iter().filter_map(Result::err) {
        assert_eq!(refusal(&status), refused(Reason::OrderNotCancellable, "order_id"));
        assert_eq!(Problem::from_status(&status).metadata()["state"], "CANCELLED");
    }
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.stop().await
}

/// Cancels as the operator.
async fn cancel_for_the_buyer(sale: &Sale, order: &Order) -> Result<Order> {
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: "c".to_owned() };
    sale.mesh.order().cancel_order(as_operator(request)).await?.into_inner().order.context("an order")
}

#[tokio::test]
async fn an_operator_cancels_for_a_buyer_and_it_is_kept_who_did() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let cancelled = cancel_for_the_buyer(&sale, &order).await?;
    assert_eq!((cancelled.state(), &cancelled.user_id), (OrderState::Cancelled, &order.user_id));
    assert_eq!(cancel_for_the_buyer(&sale, &order).await?, cancelled, "a repeat changes nothing");
    // Under the same name, but another caller's.
    let by_buyer = sale.cancel(&order, "c").await.unwrap_err();
    assert_eq!(refusal(&by_buyer), refused(Reason::OrderNotCancellable, "order_id"));
    let by_operator = "SELECT COUNT(*) FROM end_requests \
                       WHERE order_id = ? AND verb = 'CANCEL' AND asked_by = UNHEX(REPEAT('07', 16))";
    assert_eq!(sale.number(&order, by_operator).await?, 1);
    sale.settles_at(sale.lamp, UNITS).await;

    let paying = sale.payable_lamp(buyer()).await?;
    sale.pay(&paying, "p").await?;
    assert!(cancel_for_the_buyer(&sale, &paying).await.is_err(), "it is being paid");
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_is_being_paid_is_not_cancelled() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.pay(&order, "p").await?;
    let status = sale.cancel(&order, "c").await.unwrap_err();
    assert_eq!(refusal(&status), refused(Reason::OrderNotCancellable, "order_id"));
    assert_eq!(Problem::from_status(&status).metadata()["state"], "PAYING");
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_is_not_paid_in_time_expires() -> Result<()> {
    let sale = Sale::with_time_to_pay(A_MOMENT).await?;
    let order = sale.place(buyer(), sale.wish("lamp", &[(sale.lamp, 1)])).await?;
    let expired = sale.reaches(&order, OrderState::Expired).await;
    assert_eq!(expired.pay_deadline, order.pay_deadline);
    let (ended, deadline) = (expired.update_time.expect("set"), expired.pay_deadline.expect("set"));
    assert!((ended.seconds, ended.nanos) >= (deadline.seconds, deadline.nanos), "never early");
    sale.settles_at(sale.lamp, UNITS).await;
    let late = sale.pay(&order, "p").await.unwrap_err();
    assert_eq!(refusal(&late), refused(Reason::PaymentDeadlinePassed, "order_id"));
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_crowd_that_walks_away_leaves_nothing_behind() -> Result<()> {
    let sale = Sale::with_time_to_pay(A_MOMENT).await?;
    let crowd = (0..UNITS).map(|_| sale.place(buyer(), sale.wish("lamp", &[(sale.lamp, 1)])));
    for order in try_join_all(crowd).await? {
        sale.reaches(&order, OrderState::Expired).await;
        assert_eq!(sale.published(&order).await?.len(), 2, "placed and expired, each told once");
    }
    assert_eq!(sale.settles_at(sale.lamp, UNITS).await.committed_units, 0);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_late_payment_takes_the_units_again() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.approve(&paying).await?;
    let fulfilled = sale.reaches(&order, OrderState::Fulfilled).await;
    assert_eq!(fulfilled.goods.len(), 1);
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 1).await.committed_units, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_late_payment_for_what_is_sold_out_is_refunded() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    // Others buy all there is, and pay in time.
    for _ in 0..UNITS {
        let other = sale.payable_lamp(buyer()).await?;
        sale.approve(&sale.pay(&other, "p").await?).await?;
        sale.reaches(&other, OrderState::Fulfilled).await;
    }
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Refunding).await;
    sale.money_is_back(&paying).await?;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    assert!(refunded.goods.is_empty());
    assert_eq!(sale.settles_at(sale.lamp, 0).await.committed_units, UNITS);
    sale.mesh.stop().await
}

#[tokio::test]
async fn money_that_was_given_back_by_hand_ends_the_order_and_returns_all_once() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.money_is_back(&paying).await?;
    sale.money_is_back(&paying).await?;
    sale.took("payment_refunded", "ignored", 1).await;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    assert_eq!(refunded.goods.len(), 1, "a record of what had been granted");
    assert_eq!(sale.told(&order).await?, ["OrderPlaced", "PaymentRequested", "OrderFulfilled", "OrderRefunded"]);
    assert_eq!(sale.settles_at(sale.lamp, UNITS).await.committed_units, 0);
    sale.mesh.stop().await
}

#[tokio::test]
async fn money_that_was_given_back_by_hand_returns_units_that_are_being_taken_again() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.freeze(Service::Inventory, 0)?;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Paid).await;
    sale.money_is_back(&paying).await?;
    sale.reaches(&order, OrderState::Refunded).await;
    sale.mesh.thaw(Service::Inventory, 0)?;
    sale.took("stock_committed", "ignored", 1).await;
    let told = ["OrderPlaced", "PaymentRequested", "OrderExpired", "OrderPaidLate", "OrderRefunded"];
    assert_eq!(sale.told(&order).await?, told);
    assert_eq!(sale.settles_at(sale.lamp, UNITS).await.committed_units, 0);
    sale.mesh.stop().await
}
