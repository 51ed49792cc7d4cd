//! Transactions that fail at each point: before their write, before their commit, and after it.

use crate::sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale};
use anyhow::Result;
use stampede_proto::payment::v1::PaymentState;
use stampede_testkit::{MeshBuilder, Process, Proxy, Service, World, eventually};
use std::iter::{once, repeat};

/// Charges that wait for the one place there is.
const QUEUED: usize = 6;

/// The service behind a proxy of its database. What is claimed and not done is free again within seconds.
async fn open() -> Result<(Sale, Proxy)> {
    let world = World::new()?;
    let link = Proxy::to_url(&world.service_database_url(Service::Payment)).await?;
    let settings = MeshBuilder::default()
        .set(Service::Payment, "STAMPEDE_DATABASE_URL", link.url())
        .set(Service::Payment, "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", 1)
        .set(Service::Payment, PROVIDER_TIMEOUT, 500)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SLOW_MS", 1_500);
    Ok((Sale::open_on(world, settings).await?, link))
}

#[tokio::test]
async fn what_is_claimed_is_done_once_wherever_the_claim_fails() -> Result<()> {
    let (sale, link) = open().await?;
    let refunded = Order::new();
    sale.pay(&refunded, 1, "pm_card_ok").await?;
    sale.reaches(&refunded, PaymentState::Captured).await;
    let charges = link.break_off_everywhere(&["UPDATE attempts FORCE INDEX (PRIMARY) SET state = 'CHARGING'"]);
    let look_ups = link.break_off_everywhere(&["UPDATE attempts FORCE INDEX (PRIMARY) SET state = 'UNKNOWN'"]);
    let refunds = link.break_off_everywhere(&["UPDATE refunds FORCE INDEX (PRIMARY) SET due_us = "]);
    sale.publish(&refunded, refunded.refund(PRICE)).await?;
    // One is looked up, since the provider is slow about it.
    let cards = once("pm_card_timeout_captured").chain(repeat("pm_card_ok"));
    let orders: Vec<_> = (0..=QUEUED).map(|_| Order::new()).collect();
    sale.publish_all(orders.iter().zip(cards).map(|(order, card)| (*order, order.charge(1, PRICE, card)))).await?;

    sale.mesh.until_broken(Service::Payment, "claim_charges", &charges).await;
    sale.mesh.until_broken(Service::Payment, "claim_unknown", &look_ups).await;
    sale.mesh.until_broken(Service::Payment, "claim_refunds", &refunds).await;
    for order in &orders {
        sale.reaches(order, PaymentState::Captured).await;
        assert_eq!(sale.charges(order).await?.len(), 1, "{order:?}");
    }
    sale.reaches(&refunded, PaymentState::Refunded).await;
    assert_eq!((sale.charges(&refunded).await?.len(), sale.refunds(&refunded).await?.len()), (1, 1));
    sale.mesh.stop().await
}

/// The states of the dead letters about an order, the first one first.
async fn letters(sale: &Sale, order: &Order) -> Result<Vec<String>> {
    let query = "SELECT state FROM dead_letters WHERE message_key = ? ORDER BY id";
    Ok(sqlx::query_scalar(query).bind(order.id.to_string()).fetch_all(&mut *sale.conn().await?).await?)
}

/// Waits until they are in these states.
async fn until_letters(sale: &Sale, order: &Order, expected: &[&str]) {
    eventually(&format!("the letters of {order:?} are {expected:?}"), || async {
        letters(sale, order).await.ok().filter(|states| states == expected)
    })
    .await;
}

/// Decides on the first letter of an order that waits for a decision.
async fn decide(sale: &Sale, order: &Order, decision: &str) -> Result<()> {
    let decide = "UPDATE dead_letters SET state = ? WHERE message_key = ? AND state = 'WAITING' ORDER BY id LIMIT 1";
    let decide = sqlx::query(decide).bind(decision).bind(order.id.to_string());
    assert_eq!(decide.execute(&mut *sale.conn().await?).await?.rows_affected(), 1);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_is_written_and_decided_on_once_whatever_fails() -> Result<()> {
    let (sale, link) = open().await?;
    let (refused, replayed, discarded) = (Order::new(), Order::new(), Order::new());
    let aside = link.break_off_everywhere(&["INSERT INTO dead_letters "]);
    // There is nothing to refund.
    let refunds = [refused, replayed, discarded].map(|order| (order, order.refund(PRICE)));
    let behind = [(replayed, replayed.expired()), (replayed, replayed.expired())];
    sale.publish_all(refunds.into_iter().chain(behind)).await?;
    sale.mesh.until_broken(Service::Payment, "set_aside", &aside).await;
    until_letters(&sale, &refused, &["WAITING"]).await;
    until_letters(&sale, &replayed, &["WAITING", "WAITING", "WAITING"]).await;
    until_letters(&sale, &discarded, &["WAITING"]).await;

    let not_replayed = link.break_off_everywhere(&["UPDATE dead_letters SET state = 'WAITING' WHERE topic = "]);
    let replays = link.break_off_everywhere(&["UPDATE dead_letters SET state = 'REPLAYED'"]);
    // No replay does that here: behind each is another letter, or itself.
    let unparked = link.break_off_everywhere(&["DELETE FROM inbox_parked WHERE topic = "]);
    decide(&sale, &refused, "REPLAY").await?;
    decide(&sale, &replayed, "DISCARDED").await?;
    decide(&sale, &replayed, "REPLAY").await?;
    decide(&sale, &discarded, "DISCARDED").await?;
    sale.mesh.until_broken(Service::Payment, "letter_not_replayed", &not_replayed).await;
    sale.mesh.until_broken(Service::Payment, "replay_message", &replays).await;
    sale.mesh.until_broken(Service::Payment, "unpark_key", &unparked).await;
    until_letters(&sale, &refused, &["WAITING"]).await;
    until_letters(&sale, &replayed, &["DISCARDED", "REPLAYED", "WAITING"]).await;
    until_letters(&sale, &discarded, &["DISCARDED"]).await;
    let parked = sale.number("SELECT COUNT(*) FROM inbox_parked").await?;
    assert_eq!(parked, 2, "a key is parked as long as a letter of it waits");
    sale.mesh.stop().await
}
