//! Money that goes back.

use crate::{
    sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale, eur},
    stand_in::refund_key,
    webhooks::{SECRET, notify, sign},
};
use anyhow::{Result, bail};
use serde_json::json;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::{MeshBuilder, Process, Service, eventually};
use std::cell::Cell;

/// How often a refund may have ended before it was seen pending: the machine may stand still for seconds.
const ROUNDS: usize = 3;

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

/// A sale whose provider has refunds pending for two seconds. There is no gateway that it could send a notice to.
async fn with_pending_refunds() -> Result<Sale> {
    let settings = MeshBuilder::default()
        .set(Service::Payment, PROVIDER_TIMEOUT, 10_000)
        .set(Service::Payment, "STAMPEDE_WEBHOOK_SECRET", SECRET)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", 2_000);
    Sale::open_with(settings).await
}

/// Pays an order, and requests a refund that the provider answers pending.
async fn refund_pending(sale: &Sale) -> Result<Order> {
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_refund_pending").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.publish(&order, order.refund(PRICE)).await?;
    Ok(order)
}

/// Waits until the provider has done the refund of an order. Returns whether it was seen pending before, while nobody
/// was told that it is done.
async fn is_seen_pending_until_done(sale: &Sale, order: &Order) -> bool {
    let is_seen = Cell::new(false);
    eventually(&format!("the provider has refunded {order:?}"), || async {
        let published = sale.published(order).await.ok()?;
        let refunds = sale.refunds(order).await.ok()?;
        let is_pending = refunds.first()?["status"] == "pending";
        assert!(!is_pending || published.len() == 1, "{published:?} while the provider has {refunds:?}");
        is_seen.set(is_seen.get() || is_pending);
        (!is_pending).then_some(())
    })
    .await;
    is_seen.get()
}

/// The refund is done here once the provider has done it, by one refund, and that was published once.
async fn assert_refunded_once(sale: &Sale, order: &Order) -> Result<()> {
    let payment = sale.reaches(order, PaymentState::Refunded).await;
    assert_eq!((payment.captured, payment.refunded), (Some(eur(PRICE)), Some(eur(PRICE))));
    let refunds = sale.refunds(order).await?;
    assert_eq!(refunds.len(), 1, "{refunds:?}");
    assert_eq!((&refunds[0]["status"], &refunds[0]["amount_minor"]), (&json!("refunded"), &json!(PRICE)));
    let published = sale.published(order).await?;
    assert_eq!(published, [("PaymentApproved".to_owned(), 2), ("PaymentRefunded".to_owned(), 4)]);
    Ok(())
}

#[tokio::test]
async fn a_refund_that_is_pending_at_the_provider_is_done_once_though_its_notice_is_lost() -> Result<()> {
    let sale = with_pending_refunds().await?;
    for _ in 0..ROUNDS {
        let order = refund_pending(&sale).await?;
        let is_seen = is_seen_pending_until_done(&sale, &order).await;
        assert_refunded_once(&sale, &order).await?;
        if is_seen {
            return sale.mesh.stop().await;
        }
    }
    bail!("in each of {ROUNDS} rounds the refund had ended before it was seen pending")
}

/// Puts the look-ups of a refund that was answered off for good. Returns false if it is done already.
async fn look_ups_are_put_off(sale: &Sale, order: &Order) -> bool {
    let put_off = "UPDATE refunds SET due_us = 9000000000000000 WHERE state = 'REQUESTED' AND checks > 0";
    eventually(&format!("the refund of {order:?} is looked up no more"), || async {
        if sale.payment(order).await?.state() == PaymentState::Refunded {
            return Some(false);
        }
        // It may meet the process' own claim in a deadlock, and changes nothing then.
        let changed = sqlx::query(put_off).execute(&mut *sale.conn().await.ok()?).await.ok()?;
        (changed.rows_affected() == 1).then_some(true)
    })
    .await
}

#[tokio::test]
async fn a_refund_that_is_pending_at_the_provider_is_done_once_its_notice_comes() -> Result<()> {
    let sale = with_pending_refunds().await?;
    for _ in 0..ROUNDS {
        let order = refund_pending(&sale).await?;
        let is_put_off = look_ups_are_put_off(&sale, &order).await;
        let is_seen = is_seen_pending_until_done(&sale, &order).await;
        let refunds = sale.refunds(&order).await?;
        let notice = json!({"type": "refund.succeeded", "key": refund_key(&order), "charge_id": refunds[0]["charge_id"],
            "amount_minor": PRICE, "currency": "EUR", "status": "refunded", "refund_id": refunds[0]["id"]});
        for _ in 0..3 {
            notify(&sale, &notice.to_string(), &sign(&notice.to_string())).await?;
        }
        assert_refunded_once(&sale, &order).await?;
        if is_put_off && is_seen {
            return sale.mesh.stop().await;
        }
    }
    bail!("in each of {ROUNDS} rounds the refund had ended before its look-ups were put off")
}
