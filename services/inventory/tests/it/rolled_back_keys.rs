//! Somebody rolls the keys of an event back to an earlier copy, by hand, while Redis and the services run.

use crate::{
    runs::reconcile_once_there_is_room,
    sale::{Level, level, quick},
    stand::Stand,
};
use stampede_lua::stock::ShelfEvent;
use stampede_proto::inventory::v1::{ReconcileRequest, RefusalReason};
use stampede_testkit::{Service, eventually};
use stampede_vocab::Fingerprint;
use std::collections::BTreeSet;

/// Longer than a test takes.
const NEVER_MS: u64 = 600_000;
/// The places of arrival that a rebuild skips.
const SKIPPED: i64 = 1_000_000;

/// A sale in which no round compares Redis with the ledger, and no sweep drops a hold.
async fn left_alone() -> Stand {
    let mesh = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_RECONCILE_INTERVAL_MS", NEVER_MS).set(
        Service::Inventory,
        "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS",
        NEVER_MS,
    );
    Stand::with(mesh, &[]).await
}

/// Two units of each item are sold, and Redis goes back to what it had after the first. Returns the places of arrival.
async fn sold_and_rolled_back(stand: &mut Stand) -> Vec<i64> {
    stand.sale.begin_another().await;
    let sale = &stand.sale;
    let mut places = vec![sale.reserved(&sale.order([1, 0])).await.arrival];
    sale.committed_becomes(0, 1).await;
    let mut keys = stand.event_keys();
    keys.copy().await;
    for units in [[0, 1], [1, 0], [0, 1]] {
        places.push(sale.reserved(&sale.order(units)).await.arrival);
    }
    for item in [0, 1] {
        sale.committed_becomes(item, 2).await;
    }
    keys.roll_back(false).await;
    places
}

async fn event(stand: &Stand) -> ShelfEvent {
    let snapshot = stand.stock.snapshot(stand.sale.event_id, &[]).await.expect("Redis answers");
    snapshot.event.expect("the event is staged")
}

#[tokio::test]
async fn the_next_round_finds_it_before_anybody_orders() {
    let mut stand = Stand::with(quick(), &[]).await;
    let places = sold_and_rolled_back(&mut stand).await;
    let rebuilt = eventually("the event is rebuilt", || async {
        Some(event(&stand).await).filter(|event| event.is_compared && event.arrivals >= places[3])
    })
    .await;
    assert!(rebuilt.arrivals >= places[3] + SKIPPED, "it was not ready in between: {rebuilt:?}");
    let sale = &stand.sale;
    assert!(sale.reserved(&sale.order([1, 0])).await.arrival > rebuilt.arrivals);
    sale.stock_becomes(0, Level { left: 2, committed: 3, held: 0, left_gifts: 0 }).await;
    sale.stock_becomes(1, level(1, 2, 0)).await;
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn the_first_order_that_is_refused_finds_it_and_no_hold_keeps_a_place_of_another_order() {
    let mut stand = left_alone().await;
    let mut places = sold_and_rolled_back(&mut stand).await;
    let sale = &stand.sale;
    let forgotten = sale.order([1, 0]);
    stand.is_granted_and_forgotten(&forgotten).await;
    assert!(event(&stand).await.is_compared, "nothing has shown it yet");
    assert_eq!(sale.refusal(&sale.order([0, 1])).await, (RefusalReason::NotReady, 0));
    eventually("the event is distrusted", || async { (!event(&stand).await.is_compared).then_some(()) }).await;
    assert!(!stand.is_held(&forgotten).await, "its place is another order's");

    let request = ReconcileRequest { event_id: sale.event_id.to_string() };
    reconcile_once_there_is_room(&sale.api(), request).await;
    // Whoever comes to the ledger first makes the place of the forgotten one look like one that was overtaken.
    for order in [sale.order([1, 0]), forgotten, sale.order([0, 1])] {
        places.push(sale.reserved(&order).await.arrival);
    }
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{places:?}");
    assert!(places.is_sorted(), "the order of arrival is kept: {places:?}");
    assert!(places[4] > places[3] + SKIPPED, "{places:?}");
    sale.stock_becomes(0, Level { left: 1, committed: 4, held: 0, left_gifts: 0 }).await;
    sale.stock_becomes(1, level(0, 3, 0)).await;
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn an_order_whose_grant_came_late_is_refused_and_the_event_goes_on() {
    let mut stand = left_alone().await;
    stand.sale.begin_another().await;
    let sale = &stand.sale;
    for _ in 0..2 {
        sale.reserved(&sale.order([1, 0])).await;
    }
    // As an earlier release has granted it: it seems to be granted whenever it is repeated.
    let order = sale.order([0, 1]);
    let packed = format!("1|1|{}|{}|EUR|{}:1:0:1999", Fingerprint::new([1; 32]), order.buyer, sale.item(1));
    stand.write_hold(&order, &packed).await;
    assert_eq!(sale.refusal(&order).await, (RefusalReason::NotReady, 0));
    eventually("its hold is dropped", || async { (!stand.is_held(&order).await).then_some(()) }).await;
    assert_eq!(sale.reserved(&order).await.arrival, 3, "a new place");
    sale.committed_becomes(1, 1).await;
    let event = event(&stand).await;
    assert_eq!((event.is_compared, event.arrivals), (true, 3));
    stand.sale.mesh.stop().await.unwrap();
}
