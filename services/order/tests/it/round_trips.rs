//! How often a buyer waits for the database.

use crate::sale::{Sale, UNITS, refusal, refused};
use anyhow::{Result, bail};
use stampede_status::Reason;
use stampede_testkit::{FreezeAt, MeshBuilder, Proxy, Service, World, Writes, buyer};

/// An open sale, and what stands between the service and its database.
async fn open() -> Result<(Sale, Proxy)> {
    let world = World::prepared().await?;
    let link = Proxy::to_url(&world.service_database_url(Service::Order)).await?;
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_DATABASE_URL", link.url());
    Ok((Sale::open_on(world, settings).await?, link))
}

#[tokio::test]
async fn a_payment_is_begun_in_three_round_trips() -> Result<()> {
    let (sale, link) = open().await?;
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

/// A service that asks its database gets no answer here.
#[tokio::test]
async fn new_buyers_of_what_is_sold_out_are_refused_without_the_database() -> Result<()> {
    let (sale, link) = open().await?;
    for _ in 0..UNITS / 2 {
        sale.place(buyer(), sale.wish("r", &[(sale.lamp, 2)])).await?;
    }
    link.freeze_now();
    for _ in 0..10 {
        let status = sale.place(buyer(), sale.wish("r", &[(sale.lamp, 1)])).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Reason::SoldOut, "lines[0].units"), "{status:?}");
    }
    assert!(link.is_frozen());
    link.thaw();
    sale.mesh.stop().await
}
