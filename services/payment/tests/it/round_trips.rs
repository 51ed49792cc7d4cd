//! How often the outcome of a charge waits for the database.

use crate::sale::{Order, PROVIDER_TIMEOUT, Sale};
use anyhow::{Context, Result};
use stampede_proto::payment::v1::PaymentState;
use stampede_testkit::{FreezeAt, MeshBuilder, Proxy, Service, World, Writes};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn the_outcome_of_a_charge_is_stored_in_three_round_trips() -> Result<()> {
    let world = World::new()?;
    let link = Proxy::to_url(&world.service_database_url(Service::Payment)).await?;
    let settings = MeshBuilder::default().set(Service::Payment, PROVIDER_TIMEOUT, 10_000);
    let settings = settings.set(Service::Payment, "STAMPEDE_DATABASE_URL", link.url());
    let sale = Sale::open_on(world, settings).await?;
    // The first has the locks with the BEGIN, the second all that is written.
    link.freeze(Writes::From(b"\x03BEGIN;SELECT id, order_id".to_vec()), FreezeAt::Before(3));
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    let third = timeout(Duration::from_secs(60), link.frozen()).await.context("no locks went out with a BEGIN")?;
    assert!(third.ends_with(b"\x03COMMIT"), "the third is {}", String::from_utf8_lossy(&third));
    link.thaw();
    sale.reaches(&order, PaymentState::Captured).await;
    sale.mesh.stop().await
}
