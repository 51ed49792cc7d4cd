//! A topic that is deleted and made anew while its reader stands still.

use crate::sale::{LONG, Sale};
use anyhow::Result;
use stampede_proto::order::v1::OrderState;
use stampede_testkit::{MeshBuilder, Service, World, buyer, eventually};

/// A consumer logs this each time.
const LOOKED: &str = "no topic was recreated";

/// How often the consumer has looked at its topics.
fn looks(sale: &Sale) -> Result<usize> {
    Ok(sale.mesh.log(Service::Order)?.matches(LOOKED).count())
}

#[tokio::test]
async fn what_a_topic_that_was_made_anew_has_before_the_place_of_its_reader_is_read() -> Result<()> {
    let world = World::prepared().await?;
    let settings = MeshBuilder::default().set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis()).set(
        Service::Order,
        "STAMPEDE_LOG_FILTER",
        "info,stampede_inbox=debug",
    );
    let sale = Sale::open_on(world.clone(), settings).await?;
    let order = sale.payable_lamp(buyer()).await?;
    let first = sale.pay(&order, "first").await?;
    sale.decline(&first).await?;
    sale.reaches(&order, OrderState::AwaitingPayment).await;
    let second = sale.pay(&order, "second").await?;
    let before = looks(&sale)?;
    eventually("it has looked since it has read", || async { (looks(&sale).ok()? > before).then_some(()) }).await;

    // So it does not see that there is no such topic in between. It stands still for less time than a consumer may say
    // nothing, so it is still in its group then.
    sale.mesh.freeze(Service::Order, 0)?;
    world.remake_topic(Service::Payment).await?;
    // Once only: a second approval would be behind the place of the reader, and read in any case.
    sale.approve(&second).await?;
    eventually("the approval is in the new topic", || async {
        (world.records(Service::Payment).ok()? >= 1).then_some(())
    })
    .await;
    // It has one record of the old topic. Of the new one it would read what is behind the first.
    sale.decline(&first).await?;
    eventually("both are in the new topic", || async { (world.records(Service::Payment).ok()? >= 2).then_some(()) })
        .await;
    sale.mesh.thaw(Service::Order, 0)?;
    sale.reaches(&order, OrderState::Fulfilled).await;
    sale.mesh.stop().await
}
