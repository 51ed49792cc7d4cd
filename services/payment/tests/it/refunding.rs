//! Money that goes back.

use crate::shop::{Order, PRICE, Shop, eur};
use anyhow::Result;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::Process;

#[tokio::test]
async fn a_refund_gives_everything_back_once() -> Result<()> {
    let shop = Shop::open().await?;
    let order = Order::new();
    shop.pay(&order, 1, "pm_card_ok").await?;
    shop.reaches(&order, PaymentState::Captured).await;
    shop.publish(&order, order.refund(PRICE)).await?;
    shop.publish(&order, order.refund(PRICE)).await?;
    let payment = shop.reaches(&order, PaymentState::Refunded).await;
    assert_eq!((payment.captured, payment.refunded), (Some(eur(PRICE)), Some(eur(PRICE))));

    let refunds = shop.refunds(&order).await?;
    assert_eq!(refunds.len(), 1);
    assert_eq!(refunds[0]["amount_minor"], PRICE);
    let published = shop.published(&order).await?;
    assert_eq!(published, [("PaymentApproved".to_owned(), 2), ("PaymentRefunded".to_owned(), 4)]);
    shop.mesh.stop().await
}

#[tokio::test]
async fn a_refund_waits_for_a_provider_that_is_away() -> Result<()> {
    let mut shop = Shop::open().await?;
    let order = Order::new();
    shop.pay(&order, 1, "pm_card_ok").await?;
    shop.reaches(&order, PaymentState::Captured).await;
    shop.mesh.kill_9(Process::Sandbox)?;
    shop.publish(&order, order.refund(PRICE)).await?;
    shop.reaches(&order, PaymentState::Refunding).await;
    shop.mesh.restart(Process::Sandbox).await?;
    shop.reaches(&order, PaymentState::Refunded).await;
    assert_eq!(shop.refunds(&order).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_refunded_is_set_aside_and_holds_up_nobody() -> Result<()> {
    let shop = Shop::open().await?;
    let (stranger, declined, other) = (Order::new(), Order::new(), Order::new());
    shop.pay(&declined, 1, "pm_card_declined").await?;
    shop.attempt_reaches(&declined, 1, AttemptState::Declined).await;
    for order in [stranger, declined] {
        shop.publish(&order, order.refund(PRICE)).await?;
    }
    shop.pay(&other, 1, "pm_card_ok").await?;
    shop.reaches(&other, PaymentState::Captured).await;
    assert!(shop.payment(&stranger).await.is_none());
    let payment = shop.payment(&declined).await.expect("a payment");
    assert_eq!((payment.state(), payment.refunded), (PaymentState::Open, Some(eur(0))));
    shop.mesh.stop().await
}
