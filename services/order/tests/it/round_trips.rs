//! How often a buyer waits for the database.

use crate::sale::Sale;
use anyhow::{Result, bail};
use stampede_testkit::{FreezeAt, MeshBuilder, Proxy, Service, World, Writes, buyer};

#[tokio::test]
async fn a_payment_is_begun_in_three_round_trips() -> Result<()> {
    let world = World::prepared().await?;
    let link = Proxy::to_url(&world.service_database_url(Service::Order)).await?;
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_DATABASE_URL", link.url());
    let sale = Sale::open_on(world, settings).await?;
    let order = sale.payable_lamp(buyer()).await?;
    // The first has the lock with the BEGIN, the second all that is written.
    link.freeze(Writes::From(b"\x03BEGIN;SELECT id, user_id".to_vec()), FreezeAt::Before(3));
    let mut paying = Box::pin(sale.pay(&order, "p"));
    let third = tokio::select! {
        third = link.frozen() => third,
        paid = &mut paying => bail!("no lock went out with its BEGIN, or nothing came behind it: {paid:?}"),
    };
    assert!(third.ends_with(b"\x03COMMIT"), "the third is {}", String::from_utf8_lossy(&third));
    link.thaw();
    paying.await?;
    sale.mesh.stop().await
}
