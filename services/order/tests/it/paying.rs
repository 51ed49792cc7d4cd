//! Paying: one charge a request, and the goods once it is approved.

use crate::sale::{Sale, UNITS, payment_of, refusal, refused};
use anyhow::Result;
use stampede_proto::{
    order::v1::{GoodsKind, OrderState, RefundOrderRequest},
    r#type::v1::DeclineCode,
};
use stampede_status::{Problem, Reason};
use stampede_testkit::{MeshBuilder, Service, as_buyer, as_operator, buyer};
use std::time::Duration;

#[tokio::test]
async fn a_paid_order_is_fulfilled_with_its_items_and_its_gift() -> Result<()> {
    let sale = Sale::open().await?;
    let placed = sale.place(buyer(), sale.wish("r", &[(sale.kettle, 2)])).await?;
    sale.reaches(&placed, OrderState::AwaitingPayment).await;
    assert_eq!((placed.payment_id.as_str(), placed.last_decline()), ("", DeclineCode::Unspecified));
    let paying = sale.pay(&placed, "p-1").await?;
    assert_eq!((paying.state(), paying.payment_attempts, paying.version), (OrderState::Paying, 1, 2));
    assert_eq!(paying.payment_id, payment_of(&placed).to_string());
    sale.approve(&paying).await?;
    let fulfilled = sale.reaches(&placed, OrderState::Fulfilled).await;
    let goods = fulfilled.goods.iter().map(|goods| (goods.kind(), goods.units, goods.grant_time, &*goods.title));
    let at = fulfilled.fulfill_time;
    assert!(at.is_some());
    assert_eq!(goods.collect::<Vec<_>>(), [(GoodsKind::Item, 2, at, "Kettle"), (GoodsKind::Gift, 1, at, "Tea set")]);
    let published = [("OrderPlaced", 1), ("PaymentRequested", 2), ("OrderFulfilled", 3)];
    assert_eq!(sale.published(&placed).await?, published.map(|(name, version)| (name.to_owned(), version)));
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_declined_payment_may_be_tried_again_under_another_request() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let first = sale.pay(&order, "p-1").await?;
    sale.decline(&first).await?;
    let declined = sale.reaches(&order, OrderState::AwaitingPayment).await;
    assert_eq!(declined.last_decline(), DeclineCode::CardDeclined);
    let second = sale.pay(&order, "p-2").await?;
    assert_eq!((second.state(), second.payment_attempts), (OrderState::Paying, 2));
    sale.decline(&second).await?;
    sale.reaches(&order, OrderState::AwaitingPayment).await;
    // A repeat of either starts nothing, also of the one before the last.
    for repeat in ["p-1", "p-2"] {
        let same = sale.pay(&order, repeat).await?;
        assert_eq!((same.state(), same.payment_attempts), (OrderState::AwaitingPayment, 2), "{repeat}");
    }
    let third = sale.pay(&order, "p-3").await?;
    sale.approve(&third).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn after_the_third_decline_the_next_payment_waits() -> Result<()> {
    let sale =
        Sale::open_with(MeshBuilder::default().set(Service::Order, "STAMPEDE_ORDER_PAY_PAUSE_MS", 60_000)).await?;
    let order = sale.payable_lamp(buyer()).await?;
    for name in ["p-1", "p-2", "p-3"] {
        sale.decline(&sale.pay(&order, name).await?).await?;
        sale.reaches(&order, OrderState::AwaitingPayment).await;
    }
    let early = sale.pay(&order, "p-4").await.unwrap_err();
    assert_eq!(refusal(&early), refused(Reason::TooManyAttempts, "order_id"));
    let wait = Problem::from_status(&early).retry_delay().expect("when to come again");
    assert!(!wait.is_zero() && wait <= Duration::from_secs(60), "{wait:?}");
    // As if the last decline were so long ago.
    sale.tamper(&order, "UPDATE orders SET updated_us = updated_us - 60000000 WHERE id = ?").await?;
    let paying = sale.pay(&order, "p-4").await?;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn impatient_clicks_on_pay_charge_once() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let clicks = (0..20).map(|_| sale.pay(&order, "p"));
    for paying in futures_util::future::try_join_all(clicks).await? {
        assert_eq!((paying.state(), paying.payment_attempts), (OrderState::Paying, 1));
    }
    let requested = sale.published(&order).await?.into_iter().filter(|(name, _)| name == "PaymentRequested").count();
    assert_eq!(requested, 1);
    let other = sale.pay(&order, "p-2").await.unwrap_err();
    assert_eq!(refusal(&other), refused(Reason::OrderNotPayable, "order_id"));
    assert_eq!(Problem::from_status(&other).metadata()["state"], "PAYING");
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_operator_refunds_a_fulfilled_order_and_its_units_return() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let refund =
        |request_id: &str| RefundOrderRequest { order_id: order.order_id.clone(), request_id: request_id.to_owned() };
    let early = sale.mesh.order().refund_order(as_operator(refund("r"))).await.unwrap_err();
    assert_eq!(refusal(&early), refused(Reason::OrderNotRefundable, "order_id"));
    let by_buyer = as_buyer(crate::sale::buyer_of(&order), refund("r"));
    let by_buyer = sale.mesh.order().refund_order(by_buyer).await.unwrap_err();
    assert_eq!(refusal(&by_buyer).0, Reason::PermissionDenied);

    let paying = sale.pay(&order, "p").await?;
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    for _ in 0..2 {
        let refunding = sale.mesh.order().refund_order(as_operator(refund("r"))).await?.into_inner().order;
        assert_eq!(refunding.map(|order| order.state()), Some(OrderState::Refunding));
    }
    let other = sale.mesh.order().refund_order(as_operator(refund("s"))).await.unwrap_err();
    assert_eq!(refusal(&other), refused(Reason::OrderNotRefundable, "order_id"));
    assert_eq!(Problem::from_status(&other).metadata()["state"], "REFUNDING");
    sale.money_is_back(&order).await?;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    assert_eq!((refunded.goods.len(), refunded.fulfill_time.is_some()), (1, true), "kept as a record");
    let repeat = sale.mesh.order().refund_order(as_operator(refund("r"))).await?.into_inner().order;
    assert_eq!(repeat, Some(refunded), "a repeat is known when the money is back too");
    sale.settles_at(sale.lamp, UNITS).await;
    let published: Vec<String> = sale.published(&order).await?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(published, ["OrderPlaced", "PaymentRequested", "OrderFulfilled", "RefundRequested", "OrderRefunded"]);
    sale.mesh.stop().await
}
