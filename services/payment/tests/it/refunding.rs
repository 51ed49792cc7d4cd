//! Money that goes back.

use crate::sale::{Order, PRICE, Sale, eur};
use anyhow::Result;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::Process;

#[tokio::test]
async fn a_refund_gives_everything_back_once() -> Result<()> {
    let sale = Sale::open().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.publish(&order, order.refund(PRICE)).await?;
    sale.publish(&order, order.refund(PRICE)).await?;
    let payment = sale.reaches(&order, PaymentState::Refunded).await;
    assert_eq!((payment.captured, payment.refunded), (Some(eur(PRICE)), Some(eur(PRICE))));

    let refunds = sale.refunds(&order).await?;
    assert_eq!(refunds.len(), 1);
    assert_eq!(refunds[0]["amount_minor"], PRICE);
    let published = sale.published(&order).await?;
    assert_eq!(published[..2], [("PaymentApproved".to_owned(), 2), ("PaymentRefunded".to_owned(), 4)]);
    // The second request is answered as well if it is read after the refund.
    assert!(published[2..].iter().all(|(name, _)| name == "PaymentRefunded"), "{published:?}");
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_waits_for_a_provider_that_is_away() -> Result<()> {
    let mut sale = Sale::open().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.mesh.kill_9(Process::Sandbox)?;
    sale.publish(&order, order.refund(PRICE)).await?;
    sale.reaches(&order, PaymentState::Refunding).await;
    sale.mesh.restart(Process::Sandbox).await?;
    sale.reaches(&order, PaymentState::Refunded).await;
    assert_eq!(sale.refunds(&order).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_refunded_is_set_aside_and_holds_up_nobody() -> Result<()> {
    let sale = Sale::open().await?;
    let (stranger, declined, other) = (Order::new(), Order::new(), Order::new());
    sale.pay(&declined, 1, "pm_card_declined").await?;
    sale.attempt_reaches(&declined, 1, AttemptState::Declined).await;
    for order in [stranger, declined] {
        sale.publish(&order, order.refund(PRICE)).await?;
    }
    sale.pay(&other, 1, "pm_card_ok").await?;
    sale.reaches(&other, PaymentState::Captured).await;
    assert!(sale.payment(&stranger).await.is_none());
    let payment = sale.payment(&declined).await.expect("a payment");
    assert_eq!((payment.state(), payment.refunded), (PaymentState::Open, Some(eur(0))));
    sale.mesh.stop().await
}
