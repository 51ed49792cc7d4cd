//! A hold that nobody can read, of a later release or written by hand, harms no other.

use crate::{
    runs::reserve_once_there_is_room,
    sale::{Order, level},
    stand::Stand,
};
use stampede_proto::inventory::v1::{RefusalReason, ReserveRequest, reservation_result::Outcome};
use stampede_testkit::eventually;
use stampede_vocab::Fingerprint;

/// A hold of the request of every order of these tests, long ago, of which nothing more can be read.
fn unreadable() -> String {
    format!("1|1|{}|of a later release", Fingerprint::new([1; 32]))
}

#[tokio::test]
async fn the_sweep_passes_over_an_unreadable_hold_in_its_event_and_in_others() {
    let mut stand = Stand::new().await;
    let mut forgotten: Vec<Order> = Vec::new();
    // One in each event, so that in whatever order they are swept one comes before a hold that is to be dropped.
    for _ in 0..2 {
        stand.sale.begin_another().await;
        stand.write_hold(&stand.sale.order([1, 0]), &unreadable()).await;
        forgotten.push(stand.sale.order([0, 1]));
    }
    for order in &forgotten {
        stand.is_granted_and_forgotten(order).await;
    }
    for order in &forgotten {
        eventually("the hold is dropped", || async { (!stand.is_held(order).await).then_some(()) }).await;
        stand.sale.event_id = order.event_id;
        stand.sale.stock_becomes(1, level(3, 0, 0)).await;
    }
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn who_asks_for_an_unreadable_hold_is_not_answered_and_the_others_of_the_call_are() {
    let mut stand = Stand::new().await;
    stand.sale.begin_another().await;
    let orders = [stand.sale.order([0, 1]), stand.sale.order([0, 1]), stand.sale.order([0, 1])];
    stand.write_hold(&orders[1], &unreadable()).await;
    let request = ReserveRequest { reservations: orders.iter().map(Order::reservation).collect() };
    let response = reserve_once_there_is_room(&stand.sale.api(), request).await;
    let outcomes: Vec<_> = response.results.into_iter().filter_map(|result| result.outcome).collect();
    let [Outcome::Reserved(_), Outcome::Refusal(refusal), Outcome::Reserved(_)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(refusal.reason(), RefusalReason::NotReady, "it may be asked for again");
    stand.sale.mesh.stop().await.unwrap();
}
