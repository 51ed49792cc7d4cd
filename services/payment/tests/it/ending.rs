//! An order that ends before its payment does.

use crate::sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale};
use anyhow::Result;
use stampede_proto::{
    payment::v1::{AttemptState, PaymentState},
    r#type::v1::DeclineCode,
};
use stampede_testkit::{MeshBuilder, Process, Service, eventually};

#[tokio::test]
async fn an_ended_order_is_not_charged_if_the_provider_was_not_asked_yet() -> Result<()> {
    // One charge at a time, so that a provider that stands still keeps the next order waiting.
    let one_by_one = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", 1);
    let sale = Sale::open_with(one_by_one.set(Service::Payment, PROVIDER_TIMEOUT, 60_000)).await?;
    let (slow, waiting) = (Order::new(), Order::new());
    sale.mesh.freeze(Process::Sandbox, 0)?;
    sale.pay(&slow, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&slow, 1, AttemptState::Charging).await;
    sale.pay(&waiting, 1, "pm_card_ok").await?;
    sale.publish(&waiting, waiting.expired()).await?;

    let payment = sale.attempt_reaches(&waiting, 1, AttemptState::Declined).await;
    assert_eq!(payment.attempts[0].decline_code(), DeclineCode::OrderEnded);
    assert_eq!(sale.published(&waiting).await?, [("PaymentDeclined".to_owned(), 2)]);

    // Nothing of it comes back to life: who asks again is told the same, and an end that comes again changes nothing.
    sale.publish(&waiting, waiting.expired()).await?;
    sale.pay(&waiting, 1, "pm_card_ok").await?;
    assert_eq!(sale.published_names(&waiting, 2).await, ["PaymentDeclined", "PaymentDeclined"]);

    // The one that the provider may know of goes on to its end.
    sale.publish(&slow, slow.expired()).await?;
    sale.mesh.thaw(Process::Sandbox, 0)?;
    sale.reaches(&slow, PaymentState::Captured).await;
    assert!(sale.charges(&waiting).await?.is_empty());
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_was_captured_for_an_ended_order_is_published_again_until_it_is_refunded() -> Result<()> {
    let quick = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_ENDED_ORDER_AGE_MS", 200);
    let sale = Sale::open_with(quick.set(Service::Payment, PROVIDER_TIMEOUT, 60_000)).await?;
    // One is captured before its order ends, the other after it.
    let (early, late, open) = (Order::new(), Order::new(), Order::new());
    sale.pay(&early, 1, "pm_card_ok").await?;
    sale.pay(&open, 1, "pm_card_ok").await?;
    sale.reaches(&early, PaymentState::Captured).await;
    sale.reaches(&open, PaymentState::Captured).await;
    sale.mesh.freeze(Process::Sandbox, 0)?;
    sale.pay(&late, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&late, 1, AttemptState::Charging).await;
    sale.publish(&early, early.expired()).await?;
    sale.publish(&late, late.expired()).await?;
    eventually("both ends are noted", || async {
        (sale.number("SELECT COUNT(*) FROM ended_orders").await.ok()? == 2).then_some(())
    })
    .await;
    sale.mesh.thaw(Process::Sandbox, 0)?;

    sale.reaches(&late, PaymentState::Captured).await;
    assert_eq!(sale.published_names(&late, 2).await[..2], ["PaymentApproved", "PaymentApproved"]);
    // As it was captured, as its order ended, and again.
    assert_eq!(sale.published_names(&early, 3).await[..3], ["PaymentApproved"; 3]);
    for order in [&early, &late] {
        sale.publish(order, order.refund(PRICE)).await?;
        sale.reaches(order, PaymentState::Refunded).await;
    }
    // At the next look, and not after a pause that grows each time.
    let due = "UPDATE ended_orders SET due_us = 1";
    eventually("nothing is to be told any more", || async {
        // It may meet that look in a deadlock, and changes nothing then.
        sqlx::query(due).execute(&mut *sale.conn().await.ok()?).await.ok()?;
        (sale.number("SELECT COUNT(*) FROM ended_orders").await.ok()? == 0).then_some(())
    })
    .await;
    assert_eq!(sale.published_names(&open, 1).await, ["PaymentApproved"], "its order has not ended");
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_capture_that_cannot_be_published_again_keeps_no_other_waiting() -> Result<()> {
    let quick = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_ENDED_ORDER_AGE_MS", 200);
    let sale = Sale::open_with(quick).await?;
    let (refused, good) = (Order::new(), Order::new());
    for order in [&refused, &good] {
        sale.pay(order, 1, "pm_card_ok").await?;
        sale.reaches(order, PaymentState::Captured).await;
    }
    let mut conn = sale.conn().await?;
    // What the database does not take: the next version of one of them.
    sqlx::raw_sql("ALTER TABLE payments ADD CONSTRAINT ck_test CHECK (version < 1000)").execute(&mut *conn).await?;
    sqlx::query("UPDATE payments SET version = 999 WHERE order_id = ?")
        .bind(refused.id.uuid())
        .execute(&mut *conn)
        .await?;
    // Both orders have ended, and are due together.
    sqlx::query("INSERT INTO ended_orders (payment_id, due_us, tells) SELECT id, 1, 0 FROM payments")
        .execute(&mut *conn)
        .await?;
    assert_eq!(sale.published_names(&good, 2).await[..2], ["PaymentApproved"; 2]);
    eventually("what is refused is put off", || async {
        (sale.number("SELECT MIN(due_us) FROM ended_orders").await.ok()? > 1).then_some(())
    })
    .await;
    assert_eq!(sale.published(&refused).await?.len(), 1);

    // Its capture is published again once that is mended.
    sqlx::query("UPDATE payments SET version = 9 WHERE order_id = ?")
        .bind(refused.id.uuid())
        .execute(&mut *conn)
        .await?;
    sale.published_names(&refused, 2).await;
    sale.mesh.stop().await
}
