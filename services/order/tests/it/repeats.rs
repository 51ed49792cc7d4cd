//! Every message comes twice, and again behind what came later: it takes effect once. Each is a message of its own to
//! the consumer, as after a restore of its sender's database, so that nothing but the state of the order knows it.

use crate::sale::{LONG, Sale, UNITS, eur};
use anyhow::Result;
use prost::Message;
use stampede_proto::{
    message::v1 as messages,
    order::v1::{Order, OrderState, PlaceOrderRequest},
};
use stampede_testkit::{MeshBuilder, Service, buyer, eventually};
use stampede_vocab::ItemId;

async fn commits(sale: &Sale, order: &Order) -> Result<()> {
    let committed = messages::StockCommitted { order_id: order.order_id.clone(), lines: Vec::new() };
    sale.inventory_tells(order, "stampede.message.v1.StockCommitted", committed.encode_to_vec()).await
}

async fn rejects(sale: &Sale, order: &Order) -> Result<()> {
    let (reason, item_id) = (messages::StockRejectReason::SoldOut.into(), sale.lamp.to_string());
    let rejected = messages::StockRejected { order_id: order.order_id.clone(), reason, item_id };
    sale.inventory_tells(order, "stampede.message.v1.StockRejected", rejected.encode_to_vec()).await
}

#[tokio::test]
async fn what_the_payment_says_of_an_order_takes_effect_once() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let first = sale.pay(&order, "p-1").await?;
    sale.decline(&first).await?;
    sale.decline(&first).await?;
    sale.took("payment_declined", "ignored", 1).await;
    let second = sale.pay(&order, "p-2").await?;
    // The decline of the attempt before must not end this one.
    sale.decline(&first).await?;
    sale.took("payment_declined", "ignored", 2).await;
    assert_eq!(sale.now(&order).await?, second);
    sale.approve(&second).await?;
    sale.approve(&second).await?;
    sale.took("payment_approved", "ignored", 1).await;
    let fulfilled = sale.reaches(&order, OrderState::Fulfilled).await;
    sale.decline(&first).await?;
    sale.decline(&second).await?;
    sale.took("payment_declined", "ignored", 4).await;
    assert_eq!(sale.now(&order).await?, fulfilled);

    sale.refund(&order, "r").await?;
    sale.approve(&second).await?;
    sale.took("payment_approved", "ignored", 2).await;
    sale.money_is_back(&second).await?;
    sale.money_is_back(&second).await?;
    sale.took("payment_refunded", "ignored", 1).await;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    sale.decline(&first).await?;
    sale.approve(&second).await?;
    sale.money_is_back(&second).await?;
    sale.took("payment_declined", "ignored", 5).await;
    sale.took("payment_approved", "ignored", 3).await;
    sale.took("payment_refunded", "ignored", 2).await;
    assert_eq!(sale.now(&order).await?, refunded);
    let told =
        ["OrderPlaced", "PaymentRequested", "PaymentRequested", "OrderFulfilled", "RefundRequested", "OrderRefunded"];
    assert_eq!(sale.told(&order).await?, told);
    assert_eq!(sale.parked_keys().await?, 0);
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_late_payment_and_its_units_take_effect_once() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.approve(&paying).await?;
    sale.approve(&paying).await?;
    sale.took("payment_approved", "ignored", 1).await;
    let fulfilled = sale.reaches(&order, OrderState::Fulfilled).await;
    for _ in 0..2 {
        commits(&sale, &order).await?;
        rejects(&sale, &order).await?;
    }
    sale.approve(&paying).await?;
    sale.took("stock_committed", "ignored", 2).await;
    sale.took("stock_rejected", "ignored", 2).await;
    sale.took("payment_approved", "ignored", 2).await;
    assert_eq!(sale.now(&order).await?, fulfilled);
    let told = ["OrderPlaced", "PaymentRequested", "OrderExpired", "OrderPaidLate", "OrderFulfilled"];
    assert_eq!(sale.told(&order).await?, told);
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 1).await.committed_units, 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_late_payment_for_what_is_sold_out_is_refunded_once() -> Result<()> {
    let sale = Sale::with_time_to_pay(LONG).await?;
    let event = sale.another_event(2, &[eur(100)]).await?;
    let wish = |units| PlaceOrderRequest {
        event_id: event.to_string(),
        ..sale.wish("r", &[(ItemId::derive(event, 0), units)])
    };
    let order = sale.place(buyer(), wish(1)).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    // Two others buy all there is, and pay in time; it may take a moment until the units are back.
    for _ in 0..2 {
        let other = eventually("there are units", || async { sale.place(buyer(), wish(UNITS / 2)).await.ok() });
        let other = other.await;
        sale.approve(&sale.pay(&other, "p").await?).await?;
        sale.reaches(&other, OrderState::Fulfilled).await;
    }
    sale.approve(&paying).await?;
    sale.reaches(&order, OrderState::Refunding).await;
    rejects(&sale, &order).await?;
    sale.approve(&paying).await?;
    sale.took("stock_rejected", "ignored", 1).await;
    sale.took("payment_approved", "ignored", 1).await;
    sale.money_is_back(&paying).await?;
    sale.money_is_back(&paying).await?;
    sale.took("payment_refunded", "ignored", 1).await;
    let refunded = sale.reaches(&order, OrderState::Refunded).await;
    rejects(&sale, &order).await?;
    commits(&sale, &order).await?;
    sale.approve(&paying).await?;
    sale.took("stock_rejected", "ignored", 2).await;
    sale.took("stock_committed", "ignored", 1).await;
    sale.took("payment_approved", "ignored", 2).await;
    assert_eq!(sale.now(&order).await?, refunded);
    let told = ["OrderPlaced", "PaymentRequested", "OrderExpired", "OrderPaidLate", "RefundRequested", "OrderRefunded"];
    assert_eq!(sale.told(&order).await?, told);
    sale.mesh.stop().await
}

/// How often an order has published this message.
async fn times(sale: &Sale, order: &Order, name: &str) -> usize {
    let told = sale.told(order).await.unwrap_or_default();
    told.iter().filter(|told| *told == name).count()
}

#[tokio::test]
async fn whoever_owes_an_answer_is_asked_again_until_it_comes() -> Result<()> {
    let settings = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .set(Service::Order, "STAMPEDE_ORDER_PAYING_GRACE_MS", 0)
        .set(Service::Order, "STAMPEDE_ORDER_ASK_AGAIN_MS", 300);
    let sale = Sale::open_with(settings).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    sale.time_is_over(&order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.mesh.freeze(Service::Inventory, 0)?;
    sale.approve(&paying).await?;
    eventually("the units are asked for three times", || async {
        (times(&sale, &order, "OrderPaidLate").await >= 3).then_some(())
    })
    .await;
    sale.mesh.thaw(Service::Inventory, 0)?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 1).await.committed_units, 1, "once");

    sale.refund(&order, "r").await?;
    eventually("the refund is asked for three times", || async {
        (times(&sale, &order, "RefundRequested").await >= 3).then_some(())
    })
    .await;
    sale.money_is_back(&paying).await?;
    sale.reaches(&order, OrderState::Refunded).await;
    assert_eq!(sale.number(&order, "SELECT asks FROM orders WHERE id = ?").await?, 0);
    assert_eq!(times(&sale, &order, "OrderRefunded").await, 1);
    let versions: Vec<i64> = sale.published(&order).await?.into_iter().map(|(_, version)| version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    sale.mesh.stop().await
}
