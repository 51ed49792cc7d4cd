//! Charges that are answered in time.

use crate::sale::{Order, PRICE, Sale, eur};
use anyhow::Result;
use stampede_proto::{
    payment::v1::{AttemptState, PaymentState},
    r#type::v1::DeclineCode,
};
use stampede_testkit::{MeshBuilder, Service};

#[tokio::test]
async fn a_good_card_is_charged_once() -> Result<()> {
    let sale = Sale::open().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.pay(&order, 1, "pm_card_ok").await?;
    let payment = sale.reaches(&order, PaymentState::Captured).await;
    assert_eq!(payment.captured, Some(eur(PRICE)));
    assert_eq!(payment.refunded, Some(eur(0)));

    let charges = sale.charges(&order).await?;
    assert_eq!(charges.len(), 1);
    assert_eq!(charges[0]["amount_minor"], PRICE);
    assert_eq!(charges[0]["id"], payment.attempts[0].provider_charge_id);
    let published = sale.published(&order).await?;
    assert_eq!(published[0], ("PaymentApproved".to_owned(), 2));
    // The second request is answered as well if it is read after the charge.
    assert!(published[1..].iter().all(|(name, _)| name == "PaymentApproved"), "{published:?}");
    sale.mesh.stop().await
}

#[tokio::test]
async fn after_a_decline_another_card_may_be_tried() -> Result<()> {
    let sale = Sale::open().await?;
    let order = Order::new();
    for (attempt, card, code) in [
        (1, "pm_card_declined", DeclineCode::CardDeclined),
        (2, "pm_card_insufficient_funds", DeclineCode::InsufficientFunds),
        (3, "pm_card_of_another_shop", DeclineCode::InvalidPaymentMethod),
    ] {
        sale.pay(&order, attempt, card).await?;
        let payment = sale.attempt_reaches(&order, attempt, AttemptState::Declined).await;
        let last = payment.attempts.last().expect("an attempt");
        assert_eq!((payment.state(), last.decline_code()), (PaymentState::Open, code));
    }
    sale.pay(&order, 4, "pm_card_ok").await?;
    let payment = sale.reaches(&order, PaymentState::Captured).await;
    assert_eq!(payment.attempts.len(), 4);

    let published = sale.published(&order).await?;
    let names: Vec<_> = published.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["PaymentDeclined", "PaymentDeclined", "PaymentDeclined", "PaymentApproved"]);
    assert!(published.is_sorted_by(|one, next| one.1 < next.1), "{published:?}");
    let charges = sale.charges(&order).await?;
    let captured = charges.iter().filter(|charge| charge["status"] == "captured");
    assert_eq!(captured.count(), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn where_nothing_is_to_be_paid_the_provider_is_not_asked() -> Result<()> {
    let sale = Sale::open().await?;
    let order = Order::new();
    sale.publish(&order, order.charge(1, 0, "pm_card_declined")).await?;
    let payment = sale.reaches(&order, PaymentState::Captured).await;
    assert_eq!((payment.captured, payment.attempts[0].provider_charge_id.as_str()), (Some(eur(0)), ""));
    assert!(sale.charges(&order).await?.is_empty());

    sale.publish(&order, order.refund(0)).await?;
    sale.reaches(&order, PaymentState::Refunded).await;
    assert!(sale.refunds(&order).await?.is_empty());
    sale.mesh.stop().await
}

/// Two hundred orders at a time are each charged once, and published once.
async fn assert_many_are_charged_once(sale: Sale) -> Result<()> {
    let orders: Vec<_> = (0..200).map(|_| Order::new()).collect();
    for order in &orders {
        sale.pay(order, 1, "pm_card_ok").await?;
    }
    for order in &orders {
        sale.reaches(order, PaymentState::Captured).await;
        assert_eq!(sale.charges(order).await?.len(), 1);
        assert_eq!(sale.published(order).await?.len(), 1);
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn many_orders_are_each_charged_once() -> Result<()> {
    assert_many_are_charged_once(Sale::open().await?).await
}

#[tokio::test]
async fn with_few_hands_some_are_charged_as_they_come_and_the_others_wait() -> Result<()> {
    let few_hands = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", 3);
    assert_many_are_charged_once(Sale::open_with(few_hands).await?).await
}
