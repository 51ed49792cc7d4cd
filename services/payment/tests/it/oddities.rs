//! One row or one notice that is not as it should be, and its neighbours in a batch.

use crate::{
    sale::{Order, PRICE, Sale},
    stand_in::StandIn,
    webhooks::{captured, notify, sale, sign},
};
use anyhow::Result;
use sqlx::Connection;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use std::time::Duration;
use tokio::time::sleep;
use tonic::Status;

/// Has charged this order, and notifies of it.
async fn tell((sale, provider): &(Sale, StandIn), order: &Order, charge_id: &str) -> Result<(), Status> {
    provider.has_captured(order, charge_id);
    let payload = captured(order, charge_id, PRICE);
    notify(sale, &payload, &sign(&payload)).await
}

/// Notifies a little later, so that what was told before is on its way already.
async fn tell_later(after_ms: u64, both: &(Sale, StandIn), order: &Order, charge_id: &str) -> Result<(), Status> {
    sleep(Duration::from_millis(after_ms)).await;
    tell(both, order, charge_id).await
}

#[tokio::test]
async fn an_odd_row_and_an_odd_notice_harm_none_that_are_written_with_them() -> Result<()> {
    let both = sale().await?;
    let sale = &both.0;
    let orders = [(); 5].map(|()| Order::new());
    for order in &orders {
        sale.pay(order, 1, "pm_card_late").await?;
        sale.attempt_reaches(order, 1, AttemptState::Unknown).await;
    }
    let [one, other, newer, refused, good] = &orders;
    let mut conn = sale.conn().await?;
    // What a newer version may have written, and what the database does not take.
    sqlx::query("UPDATE payments SET state = 'PARTLY' WHERE order_id = ?")
        .bind(newer.id.uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::raw_sql("ALTER TABLE attempts ADD CONSTRAINT ck_test CHECK (provider_charge_id <> 'ch_bad')")
        .execute(&mut *conn)
        .await?;

    // Two batches wait for their rows; what is told meanwhile is the next one.
    let mut holder = conn.begin().await?;
    sqlx::query("SELECT id FROM payments FOR UPDATE").fetch_all(&mut *holder).await?;
    let release = async {
        sleep(Duration::from_millis(700)).await;
        holder.rollback().await
    };
    let (first, second, of_newer, of_refused, of_good, released) = tokio::join!(
        tell(&both, one, "ch_1"),
        tell_later(200, &both, other, "ch_2"),
        tell_later(400, &both, newer, "ch_3"),
        tell_later(400, &both, refused, "ch_bad"),
        tell_later(400, &both, good, "ch_5"),
        release,
    );
    released?;
    for told in [first, second, of_good] {
        told?;
    }
    for order in [one, other, good] {
        sale.reaches(order, PaymentState::Captured).await;
    }
    assert_eq!(of_newer.expect_err("it cannot be read").code(), tonic::Code::Unavailable);
    assert_eq!(of_refused.expect_err("it cannot be written").code(), tonic::Code::InvalidArgument);

    // Nothing is lost: it is told again.
    sqlx::query("UPDATE payments SET state = 'OPEN' WHERE order_id = ?")
        .bind(newer.id.uuid())
        .execute(&mut *conn)
        .await?;
    tell(&both, newer, "ch_3").await?;
    tell(&both, refused, "ch_4").await?;
    for order in [newer, refused] {
        sale.reaches(order, PaymentState::Captured).await;
    }
    both.0.mesh.stop().await
}
