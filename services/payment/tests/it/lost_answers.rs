//! Charges that were not answered: looked up until they have an end, and never made twice.

use crate::sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale};
use anyhow::Result;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::{MeshBuilder, Process, Service, eventually};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Within this of its return the service knows what became of all that it was charging.
const SOON: Duration = Duration::from_secs(60);

/// Payments that are under way at a power cut: those of `STAMPEDE_TEST_PAYMENTS`, which is a thousand at most.
fn many() -> usize {
    std::env::var("STAMPEDE_TEST_PAYMENTS").map_or(200, |count| count.parse().expect("a number"))
}

/// The provider is given less time than its slow cards take.
fn impatient() -> MeshBuilder {
    MeshBuilder::default()
        .set(Service::Payment, PROVIDER_TIMEOUT, 200)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SLOW_MS", 1_500)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", 1_500)
}

/// Waits until the outcome of the first attempt is unknown, of which nothing is published, and returns true. A look-up
/// may have come before this has looked: then it is captured, and this returns false.
async fn is_seen_unknown(sale: &Sale, order: &Order) -> bool {
    eventually(&format!("the charge of {order:?} is not answered"), || async {
        let published = sale.published(order).await.ok()?;
        let payment = sale.payment(order).await?;
        let is_unknown = payment.attempts.first()?.state() == AttemptState::Unknown;
        assert!(!is_unknown || published.is_empty(), "{published:?}");
        (is_unknown || payment.state() == PaymentState::Captured).then_some(is_unknown)
    })
    .await
}

/// The payment is captured, by one charge, and that was published once.
async fn assert_charged_once(sale: &Sale, order: &Order) -> Result<()> {
    sale.reaches(order, PaymentState::Captured).await;
    let charges = sale.charges(order).await?;
    assert_eq!(charges.len(), 1, "{charges:?}");
    assert_eq!(charges[0]["key"], format!("{}:1", order.payment_id()));
    let published = sale.published(order).await?;
    // A request that is read again after a crash is answered again if its charge has ended by then.
    assert!(!published.is_empty() && published.iter().all(|(name, _)| name == "PaymentApproved"), "{published:?}");
    Ok(())
}

#[tokio::test]
async fn a_charge_without_an_answer_is_looked_up_and_not_repeated_under_a_new_key() -> Result<()> {
    let sale = Sale::open_with(impatient()).await?;
    let mut seen = 0;
    for card in ["pm_card_timeout_captured", "pm_card_timeout_lost", "pm_card_late"] {
        let order = Order::new();
        sale.pay(&order, 1, card).await?;
        seen += u32::from(is_seen_unknown(&sale, &order).await);
        assert_charged_once(&sale, &order).await?;
    }
    assert!(seen > 0, "no charge was unknown before it was captured");
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_process_that_dies_while_it_charges_leaves_one_charge() -> Result<()> {
    let patient = MeshBuilder::default().set(Service::Payment, PROVIDER_TIMEOUT, 3_000).set(
        Process::Sandbox,
        "STAMPEDE_SANDBOX_SLOW_MS",
        2_900,
    );
    let mut sale = Sale::open_with(patient).await?;
    // Of the second order the provider has nothing, as if the process had died between its commit and the request.
    let (charged, unheard) = (Order::new(), Order::new());
    sale.pay(&charged, 1, "pm_card_timeout_captured").await?;
    sale.pay(&unheard, 1, "pm_card_timeout_lost").await?;
    eventually("the provider has charged", || async {
        sale.charges(&charged).await.ok().filter(|charges| !charges.is_empty())
    })
    .await;
    sale.attempt_reaches(&unheard, 1, AttemptState::Charging).await;
    sale.mesh.kill_9(Service::Payment)?;
    assert!(sale.charges(&unheard).await?.is_empty());
    for order in [&charged, &unheard] {
        assert_eq!(sale.published(order).await?, []);
    }
    sale.mesh.restart(Service::Payment).await?;
    for order in [&charged, &unheard] {
        // It has a lease still, which nobody may break.
        sale.attempt_reaches(order, 1, AttemptState::Charging).await;
    }
    for order in [&charged, &unheard] {
        assert_charged_once(&sale, order).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_again_when_it_is_back() -> Result<()> {
    let mut sale = Sale::open().await?;
    sale.mesh.kill_9(Process::Sandbox)?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    sale.mesh.restart(Process::Sandbox).await?;
    assert_charged_once(&sale, &order).await
}

#[tokio::test]
async fn what_was_under_way_at_a_power_cut_is_charged_within_a_minute_without_a_notice() -> Result<()> {
    let many = many();
    // The provider answers none of them before the cut, and there is no gateway that it could send a notice to.
    let settings = MeshBuilder::default()
        .set(Service::Payment, "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", many)
        .set(Service::Payment, PROVIDER_TIMEOUT, 3_000)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SLOW_MS", 60_000);
    let mut sale = Sale::open_with(settings).await?;
    let orders: Vec<_> = (0..many).map(|_| Order::new()).collect();
    // Of one half the provider has taken the money, of the other it has nothing.
    let cards = ["pm_card_timeout_captured", "pm_card_timeout_lost"].into_iter().cycle();
    sale.publish_all(orders.iter().zip(cards).map(|(order, card)| (*order, order.charge(1, PRICE, card)))).await?;
    eventually("the provider has charged one half", || async {
        let charges = sale.all_charges().await.ok()?;
        let requested = sale.number("SELECT COUNT(*) FROM payments").await.ok()?;
        (charges.len() >= many / 2 && requested == i64::try_from(many).ok()?).then_some(())
    })
    .await;
    sale.mesh.kill_9(Service::Payment)?;
    let open = sale.number("SELECT COUNT(*) FROM payments WHERE state = 'OPEN'").await?;
    assert!(open > 0, "the cut was too late");

    sale.mesh.restart(Service::Payment).await?;
    let back = Instant::now();
    loop {
        let open = sale.number("SELECT COUNT(*) FROM payments WHERE state <> 'CAPTURED'").await?;
        if open == 0 {
            break;
        }
        assert!(back.elapsed() < SOON, "{open} of {many} payments are open after {SOON:?}");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sale.all_charges().await?.len(), many, "each is charged once");
    let told = "SELECT COUNT(DISTINCT aggregateid) FROM outbox WHERE type LIKE '%.PaymentApproved'";
    assert_eq!(sale.number(told).await?, i64::try_from(many)?);
    Ok(())
}
