//! Orders that an earlier release has left, which accepted them before the ledger was asked.

use crate::sale::{Sale, UNITS, refusal, refused};
use anyhow::Result;
use prost::Message;
use stampede_proto::{
    coupon::v1::CouponState,
    message::v1 as messages,
    order::v1::{LookUpOrdersRequest, Order, OrderState, PlaceOrderRequest},
};
use stampede_status::Reason;
use stampede_testkit::{as_inventory_service, buyer, eventually};

/// Seconds after which an order is not left to an inventory of an earlier release any more.
const LONG_AGO: i64 = 120;

/// Waits until the order can be paid: one that is pending has no deadline.
async fn becomes_payable(sale: &Sale, order: &Order) -> Order {
    eventually("it can be paid", || async {
        let now = sale.now(order).await.ok()?;
        (now.state() == OrderState::AwaitingPayment && now.pay_deadline.is_some()).then_some(now)
    })
    .await
}

/// An inventory of an earlier release says that it has committed the order, or has not.
async fn is_answered(sale: &Sale, order: &Order, is_committed: bool) -> Result<()> {
    let order_id = order.order_id.clone();
    let (name, payload) = if is_committed {
        ("StockCommitted", messages::StockCommitted { order_id, lines: Vec::new() }.encode_to_vec())
    } else {
        let item_id = sale.lamp.to_string();
        let rejected = messages::StockRejected { order_id, item_id, ..messages::StockRejected::default() };
        // Its reason was a text, in a field of another number.
        ("StockRejected", [rejected.encode_to_vec(), b"\x12\x08SOLD_OUT".to_vec()].concat())
    };
    sale.inventory_tells(order, &format!("stampede.message.v1.{name}"), payload).await
}

#[tokio::test]
async fn an_order_that_was_left_pending_can_be_paid_once_its_units_are_in_the_ledger() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.leave_as_before(&order, "PENDING", 120).await?;
    let early = sale.pay(&order, "early").await;
    if let Err(status) = &early {
        assert_eq!(refusal(status), refused(Reason::OrderNotPayable, "order_id"));
    }
    let payable =
        eventually("it can be paid", || async { sale.now(&order).await.ok().filter(|now| now.pay_deadline.is_some()) })
            .await;
    if early.is_err() {
        sale.approve(&sale.pay(&payable, "p").await?).await?;
        sale.reaches(&order, OrderState::Fulfilled).await;
    }
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 1).await.committed_units, 1, "once");
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_was_rejected_is_a_cancelled_one() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.leave_as_before(&order, "REJECTED", 0).await?;
    assert_eq!(sale.now(&order).await?.state(), OrderState::Cancelled);
    let request = LookUpOrdersRequest { order_ids: vec![order.order_id.clone()] };
    let found = sale.mesh.order().look_up_orders(as_inventory_service(request)).await?.into_inner().orders;
    assert_eq!(found[0].state(), OrderState::Cancelled);
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_was_left_pending_takes_the_units_that_it_has_not() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.forget_units(&order).await?;
    sale.settles_at(sale.lamp, UNITS).await;
    sale.leave_as_before(&order, "PENDING", LONG_AGO).await?;
    let payable = becomes_payable(&sale, &order).await;
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 1).await.committed_units, 1);
    sale.approve(&sale.pay(&payable, "p").await?).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn an_order_that_was_left_pending_is_cancelled_when_all_is_sold_and_returns_its_coupon() -> Result<()> {
    let sale = Sale::open().await?;
    let somebody = buyer();
    let coupon = sale.coupon_for(somebody).await?;
    let wish = PlaceOrderRequest { coupon_id: coupon.coupon_id.clone(), ..sale.wish("r", &[(sale.lamp, 1)]) };
    let order = sale.place(somebody, wish).await?;
    sale.forget_units(&order).await?;
    for _ in 0..UNITS {
        sale.payable_lamp(buyer()).await?;
    }
    sale.leave_as_before(&order, "PENDING", LONG_AGO).await?;
    sale.reaches(&order, OrderState::Cancelled).await;
    eventually("the coupon is back", || async {
        sale.coupon(&coupon).await.ok().filter(|now| now.state() == CouponState::Issued)
    })
    .await;
    assert_eq!(sale.settles_at(sale.lamp, 0).await.committed_units, UNITS, "the others keep theirs");
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_an_inventory_of_an_earlier_release_answers_is_taken_by_pending_orders_and_no_dead_letter() -> Result<()> {
    let sale = Sale::open().await?;
    let (placed, waiting, rejected) =
        (sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?, sale.payable_lamp(buyer()).await?);
    for pending in [&waiting, &rejected] {
        sale.leave_as_before(pending, "PENDING", 0).await?;
    }
    // It is asked for orders of this release too, which need no answer.
    is_answered(&sale, &placed, true).await?;
    is_answered(&sale, &placed, false).await?;
    is_answered(&sale, &waiting, true).await?;
    is_answered(&sale, &rejected, false).await?;
    for input in ["stock_committed", "stock_rejected"] {
        sale.took(input, "ignored", 1).await;
        sale.took(input, "moved", 1).await;
    }
    assert_eq!(sale.parked_keys().await?, 0, "keys are parked behind a dead letter");
    assert_eq!(sale.now(&placed).await?, placed, "its answer is its own reservation");
    becomes_payable(&sale, &waiting).await;
    sale.reaches(&rejected, OrderState::Cancelled).await;
    assert_eq!(sale.settles_at(sale.lamp, UNITS - 2).await.committed_units, 2);
    sale.approve(&sale.pay(&placed, "p").await?).await?;
    sale.reaches(&placed, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}
