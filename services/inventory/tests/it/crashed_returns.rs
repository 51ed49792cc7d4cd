//! The sweep that gives back the units of an order that was never written dies at each write to the ledger, or its
//! transaction fails. The units come back once, and those of an order that was written stay.

use crate::{
    orders::{place, with_order},
    sale::{Order, level},
    stand::Stand,
};
use stampede_testkit::{FreezeAt, Service, Writes, eventually};
use std::collections::BTreeSet;

/// More writes than it takes to give units back.
const MOST_STEPS: usize = 20;

/// Where the sweep may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    /// The ledger has the units yet.
    InTransaction,
    /// It has given them back, and Redis does not know.
    Committed,
}

/// The order as SQL names it.
fn name_of(order: &Order) -> String {
    format!("{:X}", order.order_id.uuid().simple())
}

/// The statements that name the order, from the first one on.
fn writes_of(order: &Order) -> Writes {
    Writes::From(name_of(order).into_bytes())
}

/// An order that is written, of one unit of item 1.
async fn written(stand: &Stand) -> Order {
    let order = stand.sale.order([0, 1]);
    let placed = || place(stand.sale.mesh.order(), order.clone(), "order".to_owned());
    eventually("the order is placed", || async { placed().await.ok() }).await;
    order
}

/// Returns where the sweep died; none if it was over before it could be stopped.
async fn crash_at(stand: &mut Stand, step: usize) -> Option<Point> {
    stand.sale.begin_another().await;
    let kept = written(stand).await;
    let unwritten = stand.sale.order([0, 1]);
    stand.sale.reserved(&unwritten).await;
    let at = if step == 0 { FreezeAt::Before(1) } else { FreezeAt::After(step) };
    stand.mysql.freeze(writes_of(&unwritten), at);
    eventually("the sweep stops, or is over", || async {
        (stand.mysql.is_frozen() || stand.sale.in_ledger(&unwritten).await == 0).then_some(())
    })
    .await;
    if !stand.mysql.is_frozen() {
        stand.mysql.thaw();
        return None;
    }
    stand.mysql.frozen().await;
    let is_committed = stand.sale.in_ledger(&unwritten).await == 0;
    let point = if is_committed { Point::Committed } else { Point::InTransaction };
    println!("{step}: {point:?}");
    stand.dies().await;
    stand.sale.stock_becomes(1, level(2, 1, 0)).await;
    assert_eq!((stand.sale.in_ledger(&unwritten).await, stand.sale.in_ledger(&kept).await), (0, 1), "{point:?}");
    stand.sale.reserved(&stand.sale.order([0, 1])).await;
    Some(point)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_dies_while_it_gives_units_back_gives_them_back_once() {
    let mut stand = Stand::with(with_order(), &[Service::Order]).await;
    let (mut points, mut step) = (BTreeSet::new(), 0);
    for _ in 0..MOST_STEPS {
        // One that was over too soon, on a machine under load, is tried again.
        let Some(point) = crash_at(&mut stand, step).await else { continue };
        points.insert(point);
        if point == Point::Committed {
            break;
        }
        step += 1;
    }
    assert_eq!(points, [Point::InTransaction, Point::Committed].into());
    stand.sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_fails_at_any_point_gives_units_back_once() {
    let mut stand = Stand::with(with_order(), &[Service::Order]).await;
    stand.sale.begin_another().await;
    let kept = written(&stand).await;
    let unwritten = stand.sale.order([0, 1]);
    let marks = ["DELETE r FROM reservations r ".to_owned(), name_of(&unwritten)];
    let broken = stand.mysql.break_off_everywhere(&marks);
    stand.sale.reserved(&unwritten).await;
    stand.sale.mesh.until_broken(Service::Inventory, "release_reservations", &broken).await;
    stand.sale.stock_becomes(1, level(2, 1, 0)).await;
    assert_eq!((stand.sale.in_ledger(&unwritten).await, stand.sale.in_ledger(&kept).await), (0, 1));
    stand.sale.reserved(&stand.sale.order([0, 1])).await;
    stand.sale.mesh.stop().await.unwrap();
}
