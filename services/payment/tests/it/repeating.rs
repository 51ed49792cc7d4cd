//! Messages that come again: as new ones, which no record of messages knows, at once and after their successors.

use crate::sale::{Order, PRICE, Sale};
use anyhow::Result;
use stampede_proto::payment::v1::{AttemptState, Payment, PaymentState};

/// The payment without the time of its last message.
fn untimed(payment: Payment) -> Payment {
    Payment { update_time: None, ..payment }
}

async fn now(sale: &Sale, order: &Order) -> Option<Payment> {
    sale.payment(order).await.map(untimed)
}

#[tokio::test]
async fn every_message_may_come_again_at_any_time() -> Result<()> {
    let sale = Sale::open().await?;
    let order = Order::new();
    let declined = order.charge(1, PRICE, "pm_card_declined");
    let approved = order.charge(2, PRICE, "pm_card_ok");
    let refund = order.refund(PRICE);

    // Each is answered by its outcome, and by the same again.
    sale.publish(&order, declined.clone()).await?;
    sale.attempt_reaches(&order, 1, AttemptState::Declined).await;
    sale.publish(&order, declined.clone()).await?;
    assert_eq!(sale.published_names(&order, 2).await, ["PaymentDeclined"; 2]);

    sale.publish(&order, approved.clone()).await?;
    let captured = sale.reaches(&order, PaymentState::Captured).await;
    sale.publish(&order, approved.clone()).await?;
    assert_eq!(sale.published_names(&order, 4).await[2..], ["PaymentApproved"; 2]);
    // An order that ends unpaid has not heard of it.
    sale.publish(&order, order.expired()).await?;
    assert_eq!(sale.published_names(&order, 5).await[4..], ["PaymentApproved"]);
    assert_eq!(now(&sale, &order).await, Some(untimed(captured)));

    sale.publish(&order, refund.clone()).await?;
    let refunded = sale.reaches(&order, PaymentState::Refunded).await;
    sale.publish(&order, refund.clone()).await?;
    assert_eq!(sale.published_names(&order, 7).await[5..], ["PaymentRefunded"; 2]);

    // All of it once more, and an end that the order never had. Nobody waits for the first attempt any more.
    let (charges, refunds) = (sale.charges(&order).await?, sale.refunds(&order).await?);
    sale.publish_all([declined, approved, order.expired(), refund].map(|message| (order, message))).await?;
    assert_eq!(sale.published_names(&order, 9).await[7..], ["PaymentApproved", "PaymentRefunded"]);
    assert_eq!(now(&sale, &order).await, Some(untimed(refunded)));
    let versions: Vec<_> = sale.published(&order).await?.into_iter().map(|(_, version)| version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    assert_eq!((sale.charges(&order).await?, sale.refunds(&order).await?), (charges, refunds));
    sale.mesh.stop().await
}
