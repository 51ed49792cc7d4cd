//! Units on hold: asked for again, given back, and found by the sweep when nobody needs them.

use crate::sale::{A_FEW_ROUNDS, Level, PLACED, Sale, Step, hold_ref, level};
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_testkit::{Service, as_service};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_hold_whose_order_was_never_written_goes_back() {
    let sale = Sale::unstaged(&[Service::Order]).await;
    sale.api().stage_stock(as_service(sale.shelf(1))).await.unwrap();
    sale.hold(&sale.order([0, 1])).await;
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));
    sale.stock_becomes(1, level(3, 0, 0)).await;
}

#[tokio::test]
async fn a_hold_stays_while_nobody_can_be_asked_about_its_order() {
    let sale = Sale::open().await;
    sale.hold(&sale.order([0, 1])).await;
    tokio::time::sleep(A_FEW_ROUNDS).await;
    assert_eq!(sale.stock(1).await, Some(level(2, 0, 1)));
}

#[tokio::test]
async fn a_hold_that_was_granted_again_after_the_ledger_answered_goes_back() {
    let sale = Sale::open().await;
    let order = sale.order([2, 0]);
    sale.order_says(&order, &[PLACED, Step::Cancelled]).await;
    sale.answered(&order, 1).await;
    sale.hold(&order).await;
    sale.stock_becomes(0, Level { left: 5, committed: 0, held: 0, left_gifts: 2 }).await;
}

#[tokio::test]
async fn a_release_gives_back_what_is_held_once() {
    let sale = Sale::open().await;
    let order = sale.order([1, 1]);
    let first = sale.hold(&order).await;
    let again = sale.hold(&order).await;
    for (hold, released) in [(&first, 0), (&again, 1), (&again, 0)] {
        let request = as_service(proto::ReleaseRequest { holds: vec![hold_ref(&sale, &order, hold)] });
        assert_eq!(sale.api().release(request).await.unwrap().into_inner().released, released);
    }
    assert_eq!(sale.stock(1).await, Some(level(3, 0, 0)));
}

#[tokio::test]
async fn a_hold_is_refused_to_another_request_under_its_order() {
    let sale = Sale::open().await;
    let order = sale.order([0, 1]);
    sale.hold(&order).await;
    let other = proto::Reservation { request_fingerprint: vec![2; 32], ..sale.order([1, 0]).reservation() };
    let other = proto::Reservation { order_id: order.order_id.to_string(), ..other };
    let request = as_service(proto::ReserveRequest { reservations: vec![other] });
    let results = sale.api().reserve(request).await.unwrap().into_inner().results;
    let refusal = proto::Refusal { reason: RefusalReason::RequestIdReused.into(), ..proto::Refusal::default() };
    assert_eq!(results[0].outcome, Some(Outcome::Refusal(refusal)));
    assert_eq!((sale.stock(0).await.unwrap().held, sale.stock(1).await.unwrap().held), (0, 1));
}

#[tokio::test]
async fn a_hold_that_is_asked_for_again_and_again_stays() {
    let sale = Sale::unstaged(&[Service::Order]).await;
    sale.api().stage_stock(as_service(sale.shelf(1))).await.unwrap();
    let order = sale.order([0, 1]);
    let (started, mut last) = (Instant::now(), sale.hold(&order).await.arrival);
    while started.elapsed() < 3 * A_FEW_ROUNDS {
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let arrival = sale.hold(&order).await.arrival;
        // Unless this machine stood still for longer than the age at which a hold goes back.
        assert!(arrival == last || asked.elapsed() > Duration::from_millis(250), "it is the same hold");
        last = arrival;
    }
    sale.stock_becomes(1, level(3, 0, 0)).await;
}
