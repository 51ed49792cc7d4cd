//! Orders that an earlier release has left, which accepted them before the ledger was asked.

use crate::sale::{Sale, UNITS, refusal, refused};
use anyhow::Result;
use stampede_proto::order::v1::{LookUpOrdersRequest, OrderState};
use stampede_status::Reason;
use stampede_testkit::{as_service, buyer, eventually};

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
    let found = sale.mesh.order().look_up_orders(as_service(request)).await?.into_inner().orders;
    assert_eq!(found[0].state(), OrderState::Cancelled);
    sale.mesh.stop().await
}
