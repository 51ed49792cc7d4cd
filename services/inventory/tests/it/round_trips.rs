//! How often a buyer waits for the ledger, and with whom.

use crate::{
    lock_order::hold,
    runs::reserve_once_there_is_room,
    sale::{Order, Sale, level},
    stand::Stand,
};
use futures_util::future::join_all;
use stampede_proto::inventory::v1::{RefusalReason, ReserveRequest, reservation_result::Outcome};
use stampede_testkit::{FreezeAt, MeshBuilder, Writes, as_operator, buyer};
use stampede_vocab::{EventId, RequestId};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// Buyers who come at once, of one unit each.
const CROWD: i32 = 40;
/// Two transactions are under way, and the others queue behind them. A few may come only after that.
const MOST_TRANSACTIONS: usize = 5;
/// An event that is in neither server is looked for in the database for a tenth of a second; without a limit of its own
/// that would take the 5 s of any query. In between is time for a machine that stands still itself.
const LONGEST_LOOK: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_reservation_is_committed_in_three_round_trips() {
    let mut stand = Stand::new().await;
    stand.sale.begin_another().await;
    let order = stand.sale.order([1, 0]);
    // The first has the locks with the BEGIN, the second all that is written.
    stand.mysql.freeze(Writes::From(b"\x03BEGIN;SELECT ".to_vec()), FreezeAt::Before(3));
    let mut reserving = Box::pin(stand.sale.reserved(&order));
    let third = tokio::select! {
        third = stand.mysql.frozen() => third,
        reserved = &mut reserving => panic!("no lock went out with its BEGIN, or nothing came behind it: {reserved:?}"),
    };
    assert!(third.ends_with(b"\x03COMMIT"), "the third is {}", String::from_utf8_lossy(&third));
    stand.mysql.thaw();
    reserving.await;
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test]
async fn reservations_that_come_while_others_are_committed_share_a_transaction() {
    // Its sweeps leave holds alone for longer than this takes.
    let mut sale = Sale::with(MeshBuilder::default(), &[]).await;
    sale.begin_another().await;
    let mut shelf = sale.shelf(2);
    shelf.items[1].total_units = CROWD;
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    sale.stock_becomes(1, level(CROWD, 0, 0)).await;

    let orders: Vec<Order> = (0..CROWD).map(|_| sale.order([0, 1])).collect();
    let mut locked = hold(&sale, sale.item(1)).await;
    let all_are_granted = async {
        sale.stock_becomes(1, level(0, 0, CROWD)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut *locked).await.unwrap();
    };
    let asking = join_all(orders.iter().map(|order| sale.reserve(order)));
    let (answers, ()) = tokio::join!(asking, all_are_granted);
    let commit_time = |answer: &Outcome| match answer {
        Outcome::Reserved(reserved) => reserved.commit_time.as_ref().map(|time| (time.seconds, time.nanos)),
        Outcome::Refusal(refusal) => panic!("refused: {refusal:?}"),
    };
    // Each transaction has a time of its own.
    let transactions: BTreeSet<_> = answers.iter().map(commit_time).collect();
    assert!(transactions.len() <= MOST_TRANSACTIONS, "{CROWD} reservations in {} transactions", transactions.len());
    sale.committed_becomes(1, CROWD).await;
    sale.mesh.stop().await.unwrap();
}

/// Whoever asks the database gets no answer from it here.
#[tokio::test]
async fn buyers_of_whom_redis_has_never_heard_are_refused_without_the_database() {
    let mut stand = Stand::new().await;
    stand.sale.begin_another().await;
    for _ in 0..3 {
        stand.sale.reserved(&stand.sale.order([0, 1])).await;
    }
    stand.sale.committed_becomes(1, 3).await;
    let late: Vec<Order> = (0..10).map(|_| stand.sale.order([0, 1])).collect();
    stand.mysql.freeze_now();
    for refusal in join_all(late.iter().map(|order| stand.sale.refusal(order))).await {
        assert_eq!(refusal, (RefusalReason::SoldOut, 0));
    }
    assert!(stand.mysql.is_frozen());

    // One call for an event that nobody knows, which only the database can tell, does not keep the others.
    let nowhere = EventId::derive(buyer(), &RequestId::parse("nowhere").unwrap());
    let strange = Order { event_id: nowhere, ..stand.sale.order([0, 1]) };
    let orders = [strange, stand.sale.order([0, 1])];
    let request = ReserveRequest { reservations: orders.iter().map(Order::reservation).collect() };
    let response = timeout(LONGEST_LOOK, reserve_once_there_is_room(&stand.sale.api(), request)).await.unwrap();
    let reason = |outcome: Option<Outcome>| match outcome {
        Some(Outcome::Refusal(refusal)) => refusal.reason(),
        other => panic!("not refused: {other:?}"),
    };
    let reasons: Vec<_> = response.results.into_iter().map(|result| reason(result.outcome)).collect();
    assert_eq!(reasons, [RefusalReason::NotReady, RefusalReason::SoldOut]);
    stand.mysql.thaw();
    stand.sale.mesh.stop().await.unwrap();
}
