//! A sale on a Redis Cluster whose master is killed, or whose slot moves, in the middle of it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::sale::{Level, Order, Sale};
use stampede_lua::Keys;
use stampede_proto::inventory::v1::{self as proto, RefusalReason, reservation_result::Outcome};
use stampede_testkit::{OwnCluster, as_order_service, eventually};
use std::collections::BTreeSet;
use tonic::Code;

/// More buyers than the five units of item 0. Some come before the trouble and some in it, so that units are left for
/// those that come after it.
const BUYERS: usize = 8;
const BEFORE: usize = 1;
const DURING: usize = 2;

fn key(sale: &Sale) -> String {
    Keys::new(sale.world.redis_key_prefix()).stock_event(sale.event_id)
}

/// Asks again until it is decided, as the order service and a buyer do: the answer may get lost, and an event that has
/// to be compared with the ledger is NOT_READY.
async fn decided(sale: &Sale, order: &Order) -> Outcome {
    eventually("the order is decided", || async {
        let request = proto::ReserveRequest { reservations: vec![order.reservation()] };
        let outcome = match sale.api().reserve(as_order_service(request)).await {
            Ok(response) => response.into_inner().results.remove(0).outcome.unwrap(),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                return None;
            }
        };
        match outcome {
            Outcome::Refusal(refusal) if refusal.reason() == RefusalReason::NotReady => None,
            outcome => Some(outcome),
        }
    })
    .await
}

async fn decided_once_there_is_room(sale: &Sale, order: &Order) -> Outcome {
    eventually("a unit comes back", || async {
        match decided(sale, order).await {
            Outcome::Refusal(refusal) if refusal.reason() == RefusalReason::SoldOut => None,
            outcome => Some(outcome),
        }
    })
    .await
}

async fn decided_in_turn(sale: &Sale, orders: &[Order]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for order in orders {
        outcomes.push(decided(sale, order).await);
    }
    outcomes
}

/// Buyers come one after the other, before the trouble, in it and after it.
async fn sell_through(sale: &Sale, trouble: impl Future<Output = ()>) {
    let orders: Vec<_> = (0..BUYERS).map(|_| sale.order([1, 0])).collect();
    let (before, rest) = orders.split_at(BEFORE);
    let (during, after) = rest.split_at(DURING);
    let mut outcomes = decided_in_turn(sale, before).await;
    let (in_trouble, ()) = tokio::join!(decided_in_turn(sale, during), trouble);
    outcomes.extend(in_trouble);
    outcomes.extend(decided_in_turn(sale, after).await);

    let mut arrivals = BTreeSet::new();
    for (order, outcome) in orders.iter().zip(&outcomes) {
        match outcome {
            Outcome::Reserved(reserved) => {
                assert!(arrivals.insert(reserved.arrival), "place {} was given twice", reserved.arrival);
                assert_eq!(sale.in_ledger(order).await, 1, "it was accepted");
            }
            Outcome::Refusal(refusal) => {
                assert_eq!(refusal.reason(), RefusalReason::SoldOut);
                assert_eq!(sale.in_ledger(order).await, 0, "it was refused");
            }
        }
    }
    // A hold of an order that was accepted, whose commit was lost with the master, keeps its unit until the sweep sees
    // that the ledger has the order: it is sold then.
    while arrivals.len() < 5 {
        let late = sale.order([1, 0]);
        if let Outcome::Reserved(reserved) = decided_once_there_is_room(sale, &late).await {
            assert!(arrivals.insert(reserved.arrival), "place {} was given twice", reserved.arrival);
        }
    }
    assert_eq!(arrivals.len(), 5, "{outcomes:?}");
    sale.stock_becomes(0, Level { left: 0, committed: 5, held: 0, left_gifts: 0 }).await;
}

#[tokio::test]
async fn orders_go_on_when_the_master_of_the_event_is_killed() {
    let mut cluster = OwnCluster::start().await.unwrap();
    let sale = Sale::on_cluster(&cluster).await;
    let (key, killed) = (key(&sale), cluster.master_of(&key(&sale)).await.unwrap());
    sell_through(&sale, async { cluster.kill_master_of(&key).await.unwrap() }).await;
    assert_ne!(cluster.master_of(&key).await.unwrap(), killed, "the units were sold on the new master");
}

#[tokio::test]
async fn orders_go_on_when_the_slot_of_the_event_moves_to_another_master() {
    let cluster = OwnCluster::start().await.unwrap();
    let sale = Sale::on_cluster(&cluster).await;
    let (key, left) = (key(&sale), cluster.master_of(&key(&sale)).await.unwrap());
    sell_through(&sale, async { cluster.move_slot_of(&key).await.unwrap() }).await;
    assert_ne!(cluster.master_of(&key).await.unwrap(), left);
}
