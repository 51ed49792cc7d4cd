//! Charges that were not answered: looked up until they have an end, and never made twice.

use crate::shop::{Order, Shop};
use anyhow::Result;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::{MeshBuilder, Process, Service, eventually};

/// The provider is given less time than its slow cards take.
fn impatient() -> MeshBuilder {
    MeshBuilder::default()
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 200)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SLOW_MS", 1_500)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", 1_500)
}

/// The payment is captured, by one charge, and that was published once.
async fn assert_charged_once(shop: &Shop, order: &Order) -> Result<()> {
    shop.reaches(order, PaymentState::Captured).await;
    let charges = shop.charges(order).await?;
    assert_eq!(charges.len(), 1, "{charges:?}");
    assert_eq!(charges[0]["key"], format!("{}:1", order.payment_id()));
    assert_eq!(shop.published(order).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_charge_without_an_answer_is_looked_up_and_not_repeated_under_a_new_key() -> Result<()> {
    let shop = Shop::open_with(impatient()).await?;
    for card in ["pm_card_timeout_captured", "pm_card_timeout_lost", "pm_card_late"] {
        let order = Order::new();
        shop.pay(&order, 1, card).await?;
        shop.attempt_reaches(&order, 1, AttemptState::Unknown).await;
        assert_eq!(shop.published(&order).await?, [], "{card}");
        assert_charged_once(&shop, &order).await?;
    }
    shop.mesh.stop().await
}

#[tokio::test]
async fn a_process_that_dies_while_it_charges_leaves_one_charge() -> Result<()> {
    let patient = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 3_000).set(
        Process::Sandbox,
        "STAMPEDE_SANDBOX_SLOW_MS",
        2_900,
    );
    let mut shop = Shop::open_with(patient).await?;
    // Of the second order the provider has nothing, as if the process had died between its commit and the request.
    let (charged, unheard) = (Order::new(), Order::new());
    shop.pay(&charged, 1, "pm_card_timeout_captured").await?;
    shop.pay(&unheard, 1, "pm_card_timeout_lost").await?;
    eventually("the provider has charged", || async {
        shop.charges(&charged).await.ok().filter(|charges| !charges.is_empty())
    })
    .await;
    shop.attempt_reaches(&unheard, 1, AttemptState::Charging).await;
    shop.mesh.kill_9(Service::Payment)?;
    assert!(shop.charges(&unheard).await?.is_empty());
    for order in [&charged, &unheard] {
        assert_eq!(shop.published(order).await?, []);
    }
    shop.mesh.restart(Service::Payment).await?;
    for order in [&charged, &unheard] {
        // It has a lease still, which nobody may break.
        shop.attempt_reaches(order, 1, AttemptState::Charging).await;
    }
    for order in [&charged, &unheard] {
        assert_charged_once(&shop, order).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_again_when_it_is_back() -> Result<()> {
    let mut shop = Shop::open().await?;
    shop.mesh.kill_9(Process::Sandbox)?;
    let order = Order::new();
    shop.pay(&order, 1, "pm_card_ok").await?;
    shop.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    shop.mesh.restart(Process::Sandbox).await?;
    assert_charged_once(&shop, &order).await
}
