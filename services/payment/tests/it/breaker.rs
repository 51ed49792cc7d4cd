//! A provider that fails: charges wait for it, and deadlines of orders do not.

use crate::sale::{Order, Sale};
use anyhow::Result;
use stampede_proto::{
    payment::v1::{AttemptState, PaymentState},
    r#type::v1::DeclineCode,
};
use stampede_testkit::{MeshBuilder, Process, Service};

#[tokio::test]
async fn while_the_provider_fails_charges_stay_queued_and_end_with_their_orders() -> Result<()> {
    let settings = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_BREAKER_FAILURES", 1).set(
        Service::Payment,
        "STAMPEDE_PAYMENT_BREAKER_PAUSE_MS",
        6_000,
    );
    let mut sale = Sale::open_with(settings).await?;
    sale.mesh.kill_9(Process::Sandbox)?;
    let (tried, ended, free) = (Order::new(), Order::new(), Order::new());
    sale.pay(&tried, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&tried, 1, AttemptState::Unknown).await;

    // Nobody is asked about it: at the end of its order it has not been charged, and will not be.
    sale.pay(&ended, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&ended, 1, AttemptState::Requested).await;
    sale.publish(&ended, ended.expired()).await?;
    let payment = sale.attempt_reaches(&ended, 1, AttemptState::Declined).await;
    assert_eq!(payment.attempts[0].decline_code(), DeclineCode::OrderEnded);
    // Who pays nothing needs no provider.
    sale.publish(&free, free.charge(1, 0, "pm_card_ok")).await?;
    sale.reaches(&free, PaymentState::Captured).await;

    sale.mesh.restart(Process::Sandbox).await?;
    sale.reaches(&tried, PaymentState::Captured).await;
    assert_eq!(sale.charges(&tried).await?.len(), 1);
    assert!(sale.charges(&ended).await?.is_empty());
    Ok(())
}
