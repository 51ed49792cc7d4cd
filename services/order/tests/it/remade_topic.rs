//! A topic that is deleted and made anew while its reader stands still.

use crate::sale::{LONG, Sale};
use anyhow::Result;
use stampede_proto::order::v1::OrderState;
use stampede_testkit::{MeshBuilder, Service, World, buyer, eventually};
use std::time::Duration;
use tokio::time::sleep;

/// Within that a consumer has looked at its topics since it has read something. Nothing tells when it has.
const LOOKED_WITHIN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn what_a_topic_that_was_made_anew_has_before_the_place_of_its_reader_is_read() -> Result<()> {
    let world = World::prepared().await?;
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis());
    let sale = Sale::open_on(world.clone(), settings).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let first = sale.pay(&order, "first").await?;
    sale.decline(&first).await?;
    sale.reaches(&order, OrderState::AwaitingPayment).await;
    let second = sale.pay(&order, "second").await?;
    sleep(LOOKED_WITHIN).await;

    // So it does not see that there is no such topic in between. It stands still for less time than a consumer may say
    // nothing, so it is still in its group then.
    sale.mesh.freeze(Service::Order, 0)?;
    world.remake_topic(Service::Payment).await?;
    sale.approve(&second).await?;
    // It has one record of the old topic. Of the new one it would read what is behind the first.
    sale.decline(&first).await?;
    eventually("both are in the new topic", || async { (world.records(Service::Payment).ok()? >= 2).then_some(()) })
        .await;
    sale.mesh.thaw(Service::Order, 0)?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}
