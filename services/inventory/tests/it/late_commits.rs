//! A hold that was granted inside of the window and comes to the ledger long after the close.

use crate::{
    sale::{Order, level, quick, seconds_from_now},
    stand::Stand,
};
use stampede_proto::inventory::v1::{RefusalReason, StageStockRequest};
use stampede_testkit::{Service, as_operator, eventually};
use stampede_vocab::{Fingerprint, Timestamp};
use std::time::Duration;

/// How long ago the event has closed, which is longer than the grace.
const CLOSED_AGO_S: i64 = 10;
/// How long ago the holds were granted: before that.
const GRANTED_AGO: Duration = Duration::from_secs(20);

/// The script grants a unit of item 1, as long ago as if whoever was to commit it had stood still since.
async fn is_granted_long_ago(stand: &Stand, order: &Order, arrival: i64) {
    stand.is_granted_and_forgotten(order).await;
    let granted_us = Timestamp::now().minus(GRANTED_AGO).micros();
    let (fingerprint, buyer, item) = (Fingerprint::new([1; 32]), order.buyer, stand.sale.item(1));
    let packed = format!("{arrival}|{granted_us}|{fingerprint}|{buyer}|EUR|{item}:1:0:1999|{granted_us}");
    stand.write_hold(order, &packed).await;
}

#[tokio::test]
async fn what_was_granted_in_time_is_refused_once_the_event_has_been_closed_for_longer_than_a_commit_takes() {
    // No sweep drops the holds.
    let mesh = quick().set(Service::Inventory, "STAMPEDE_INVENTORY_STALE_HOLD_AGE_MS", 3_600_000);
    let mut stand = Stand::with(mesh, &[]).await;
    stand.sale.begin_another().await;
    let sale = &stand.sale;
    let (early, late) = (sale.order([0, 1]), sale.order([0, 1]));
    is_granted_long_ago(&stand, &early, 1).await;
    is_granted_long_ago(&stand, &late, 2).await;
    let first = sale.reserved(&early).await;

    let closed = StageStockRequest { close_time: Some(seconds_from_now(-CLOSED_AGO_S)), ..sale.shelf(2) };
    sale.api().stage_stock(as_operator(closed)).await.unwrap();
    assert_eq!(sale.refusal(&late).await, (RefusalReason::EventClosed, 0));
    assert_eq!(sale.in_ledger(&late).await, 0);
    eventually("its hold is dropped", || async { (!stand.is_held(&late).await).then_some(()) }).await;
    sale.stock_becomes(1, level(2, 1, 0)).await;
    assert_eq!(sale.refusal(&late).await, (RefusalReason::EventClosed, 0), "by the script now");
    let repeat = sale.reserved(&early).await;
    assert_eq!((repeat.arrival, &repeat.lines, repeat.commit_time), (first.arrival, &first.lines, first.commit_time));
    stand.sale.mesh.stop().await.unwrap();
}
