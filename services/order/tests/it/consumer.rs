//! A consumer or a relay that cannot go on is named where readiness is asked for, until it goes on.

use crate::sale::Sale;
use anyhow::{Context, Result};
use stampede_proto::order::v1::OrderState;
use stampede_testkit::{Service, buyer, eventually};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longer than the half minute after which a consumer that applies nothing is said to stand still, and a relay that
/// renews no lease.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether both are said to stand still by readiness, and the consumer by its gauge.
async fn stands_still(sale: &Sale) -> Result<bool> {
    let readiness = sale.mesh.readiness(Service::Order).await?;
    let gauge = sale.mesh.metrics(Service::Order).await?.values("stampede_inbox_stands_still", &[]);
    let is_said = |who: &str| readiness.contains(&format!("{who}: stands still"));
    Ok(is_said("consumer") && is_said("relay") && gauge == [1.0])
}

/// The same the other way round.
async fn moves(sale: &Sale) -> Result<bool> {
    let readiness = sale.mesh.readiness(Service::Order).await?;
    let gauge = sale.mesh.metrics(Service::Order).await?.values("stampede_inbox_stands_still", &[]);
    let is_said = |who: &str| readiness.contains(&format!("{who}: moves"));
    Ok(is_said("consumer") && is_said("relay") && gauge == [0.0])
}

#[tokio::test]
async fn a_consumer_and_a_relay_that_can_do_nothing_are_said_to_stand_still_until_they_go_on() -> Result<()> {
    let sale = Sale::open().await?;
    let order = sale.payable_lamp(buyer()).await?;
    let paying = sale.pay(&order, "p").await?;
    eventually("both move", || async { moves(&sale).await.ok()?.then_some(()) }).await;

    let away = "RENAME TABLE orders TO orders_away, outbox_leases TO outbox_leases_away";
    sqlx::raw_sql(away).execute(&mut *sale.connection().await?).await?;
    sale.approve(&paying).await?;
    let said = async {
        while !stands_still(&sale).await? {
            sleep(Duration::from_millis(200)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(LONGEST, said).await.context("they are never said to stand still")??;
    let readiness = sale.mesh.readiness(Service::Order).await?;
    assert_eq!(readiness.split(' ').nth(1), Some("200"), "calls are answered all the same: {readiness}");

    let back = "RENAME TABLE orders_away TO orders, outbox_leases_away TO outbox_leases";
    sqlx::raw_sql(back).execute(&mut *sale.connection().await?).await?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    eventually("both move again", || async { moves(&sale).await.ok()?.then_some(()) }).await;
    assert_eq!(sale.parked_keys().await?, 0);
    sale.mesh.stop().await
}
