//! The same order, asked for on several replicas at a time.

use crate::{
    runs,
    sale::{Order, Sale},
};
use futures_util::future::join_all;
use stampede_proto::inventory::v1::{
    RefusalReason, ReserveRequest, StageStockRequest, inventory_service_client::InventoryServiceClient,
    reservation_result::Outcome,
};
use stampede_testkit::{MeshBuilder, Service, eventually};
use std::collections::BTreeSet;

const REPLICAS: usize = 3;
/// So many that most steps of one replica come between two of another.
const BUYERS: usize = 150;

fn is_not_ready(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refusal(refusal) if refusal.reason() == RefusalReason::NotReady)
}

/// The limit leaves room for the order once: a replica that decides by what the order itself has taken refuses it. One
/// that takes units for it again takes a place of arrival as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_of_a_known_buyer_gets_one_answer_wherever_it_is_asked_for() {
    // Its sweeps leave holds alone: what they drop is granted again, with another arrival.
    let mesh = MeshBuilder::default().replicas(Service::Inventory, REPLICAS);
    let mesh = mesh.set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 600_000);
    let sale = Sale::with(mesh, &[]).await;
    let mut shelf = StageStockRequest { items: sale.shelf(1).items[..1].to_vec(), ..sale.shelf(1) };
    shelf.items[0].total_units = 2 * i32::try_from(BUYERS).unwrap();
    runs::stage_once_there_is_room(&sale.api(), shelf).await;

    let first: Vec<Order> = (0..BUYERS).map(|_| sale.order([1, 0])).collect();
    let request = ReserveRequest { reservations: first.iter().map(Order::reservation).collect() };
    let answer = runs::reserve_once_there_is_room(&sale.api(), request).await;
    assert!(answer.results.iter().all(|result| matches!(result.outcome, Some(Outcome::Reserved(_)))), "{answer:?}");

    let replicas: Vec<_> =
        sale.mesh.replica_channels(Service::Inventory).into_iter().map(InventoryServiceClient::new).collect();
    let second = first.iter().flat_map(|order| {
        let order = order.again();
        replicas.iter().map(move |replica| (replica, order.reservation()))
    });
    let outcomes = join_all(second.map(async |(replica, reservation)| {
        let request = ReserveRequest { reservations: vec![reservation] };
        // Not ready: another replica's copy has come first, and the last units are counted twice.
        eventually("it is decided", || async {
            let answer = runs::reserve_once_there_is_room(replica, request.clone()).await;
            answer.results.into_iter().next().unwrap().outcome.filter(|outcome| !is_not_ready(outcome))
        })
        .await
    }))
    .await;
    let refused: Vec<_> = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Reserved(_))).collect();
    assert!(refused.is_empty(), "{} of {} are refused: {:?}", refused.len(), outcomes.len(), refused[0]);
    let mut given = BTreeSet::new();
    for answers in outcomes.chunks(REPLICAS) {
        let arrivals: Vec<_> = answers
            .iter()
            .map(|outcome| if let Outcome::Reserved(reserved) = outcome { reserved.arrival } else { 0 })
            .collect();
        assert!(arrivals.iter().all(|arrival| *arrival == arrivals[0]), "{arrivals:?}");
        given.insert(arrivals[0]);
    }
    let places = i64::try_from(BUYERS).unwrap();
    let missing: Vec<_> = (places + 1..=2 * places).filter(|place| !given.contains(place)).collect();
    assert!(missing.is_empty(), "units were taken for nobody: the places {missing:?} of {given:?}");
    sale.mesh.stop().await.unwrap();
}
