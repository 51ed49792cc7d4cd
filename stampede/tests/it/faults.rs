//! A small sale with power cuts, and the audit after: once every process is killed and started again, and once one
//! replica of each service is lost for good.

use crate::crowd::{Crowd, Orders};
use stampede_testkit::{Mesh, MeshBuilder, Process, Service, World, heavy};
use std::time::Duration;

/// The sale: every kind of buyer, in about half a minute. What is never paid comes back while there are still buyers
/// who come back for it.
const SALE: &str = r#"
name = "A sale through power cuts"
opens_in_ms = 4_000
lasts_ms = 26_000
pay_window_ms = 12_000

[[items]]
title = "Kettle"
price = { minor_units = 1_999, currency = "EUR" }
units = 120
limit_per_buyer = 2
gift = { title = "Mug", units = 20 }

[[items]]
title = "Lamp"
price = { minor_units = 4_999, currency = "EUR" }
units = 60
limit_per_buyer = 1

[campaign]
name = "Ten off"
quota = 100
discount = { minor_units = 1_000, currency = "EUR" }
opens_before_ms = 1_000
spread_ms = 4_000

[crowd]
buyers = 260
spread_ms = 12_000
double_clickers_percent = 5
early_birds_percent = 5
cut_connections_percent = 5
over_limit_percent = 5
come_back_percent = 10
abandon_percent = 5
cancel_percent = 5
declined_cards_percent = 10
timed_out_cards_percent = 3
"#;
/// That of the sale.
const PAY_WINDOW_MS: u32 = 12_000;

/// Runs the sale, and kills one kind of process after the other while it goes on. Checks that the crowd sees nothing
/// unexpected, and that every promise holds.
async fn survives(
    mesh: MeshBuilder,
    struck: impl IntoIterator<Item = Process>,
    strike: impl AsyncFn(&mut Mesh, Process),
) {
    let world = World::prepared().await.unwrap();
    let mut mesh = mesh
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", PAY_WINDOW_MS)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 500)
        .start(&world, Process::all())
        .await
        .unwrap();
    let crowd = Crowd::come(SALE, &mesh);

    let orders = Orders::of(&world).await;
    for (count, process) in (1..).zip(struck) {
        orders.until_placed(count * 10).await;
        strike(&mut mesh, process).await;
    }

    crowd.goes_home_content(&world, &mesh, &[]).await;
    mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_keeps_its_promises_while_every_process_is_killed_once() {
    let _permit = heavy().await;
    // The gateway, and the services behind it. (The payment provider is a third party's.)
    let every = [Process::Gateway].into_iter().chain(Service::ALL.map(Process::Service));
    survives(MeshBuilder::default(), every, async |mesh, process| {
        mesh.kill_9(process).unwrap();
        // Long enough to be noticed: callers and buyers have to fail over.
        tokio::time::sleep(Duration::from_millis(300)).await;
        mesh.restart(process).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_over_replicas_keeps_its_promises_while_one_of_each_is_lost_for_good() {
    let _permit = heavy().await;
    let mesh = Service::ALL.into_iter().fold(MeshBuilder::default(), |mesh, service| mesh.replicas(service, 2));
    // Two are left of the service whose whole work is to open the event once.
    let mesh = mesh.replicas(Service::Event, 3);
    survives(mesh, Service::ALL.map(Process::from), async |mesh, process| mesh.kill_9(process).unwrap()).await;
}
