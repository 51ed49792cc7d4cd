//! A reservation is walked write by write, to the ledger and to Redis, and the process is killed at each. Wherever it
//! died: nothing stays on hold, what is committed is sold once, whoever asks again gets what was answered, and the
//! others get the rest and no more.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    sale::{Level, Order},
    stand::{Stand, each_side_of_a_write},
};
use stampede_proto::inventory::v1::{
    self as proto, RefusalReason, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
};
use stampede_testkit::{FreezeAt, Proxy, Writes, as_order_service, eventually};
use std::collections::BTreeSet;
use tokio::task::JoinHandle;
use tonic::{Status, transport::Channel};

/// More writes than a reservation takes on either way.
const MOST_STEPS: usize = 40;
/// What the database is sent first of each transaction.
const BEGIN: &[u8] = b"\x03BEGIN";
/// Of the 5 units and 2 gifts of item 0.
const UNITS: i32 = 2;

/// Where a process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    /// Before the script has run.
    BeforeScript,
    /// The script has granted, and the transaction has not begun.
    Granted,
    /// Inside of the transaction.
    InTransaction,
    /// The transaction has committed, and nobody was told.
    Committed,
    /// The caller was told, and Redis still has the hold.
    Answered,
    /// Redis has the copy, and the process does not know.
    Copied,
}

/// The server to which the writes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ledger,
    Redis,
}

impl Way {
    fn proxy(self, stand: &Stand) -> &Proxy {
        match self {
            Self::Ledger => &stand.mysql,
            Self::Redis => &stand.redis,
        }
    }

    fn freeze(self, stand: &Stand, order: &Order, step: usize) {
        let (writes, at) = match (self, step) {
            (Self::Ledger, 0) => (Writes::From(BEGIN.to_vec()), FreezeAt::Before(1)),
            // What is held back before the next statement is what is there after this one.
            (Self::Ledger, _) => (Writes::From(BEGIN.to_vec()), FreezeAt::After(step)),
            (Self::Redis, _) => (Writes::With(order.order_id.to_string().into_bytes()), each_side_of_a_write(step)),
        };
        self.proxy(stand).freeze(writes, at);
    }
}

/// What was there when the process died.
struct Found {
    point: Point,
    units: i32,
    /// What the caller was told.
    answer: Option<proto::Reserved>,
}

type Asked = JoinHandle<Result<Outcome, Status>>;

async fn ask(mut api: InventoryServiceClient<Channel>, reservation: proto::Reservation) -> Result<Outcome, Status> {
    let request = proto::ReserveRequest { reservations: vec![reservation] };
    let mut results = api.reserve(as_order_service(request)).await?.into_inner().results;
    Ok(results.remove(0).outcome.unwrap())
}

fn reserved(outcome: Outcome) -> proto::Reserved {
    match outcome {
        Outcome::Reserved(reserved) => reserved,
        Outcome::Refusal(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// Kills the process at each write of a reservation on this way. Returns the points at which it was.
async fn walk(stand: &mut Stand, way: Way) -> BTreeSet<Point> {
    let mut points = BTreeSet::new();
    for step in 0..MOST_STEPS {
        match crash_at(stand, way, step).await {
            Some(point) => points.insert(point),
            None => return points,
        };
    }
    panic!("a reservation takes more than {MOST_STEPS} steps");
}

/// Returns where the process died; none if the reservation was over before.
async fn crash_at(stand: &mut Stand, way: Way, step: usize) -> Option<Point> {
    stand.sale.begin_another().await;
    let order = stand.sale.order([UNITS, 0]);
    way.freeze(stand, &order, step);
    let asked = tokio::spawn(ask(stand.sale.api(), order.reservation()));
    if !is_stopped(stand, way, &order, &asked).await {
        reserved(asked.await.unwrap().unwrap());
        // Or what comes next on that connection would stand still.
        way.proxy(stand).thaw();
        return None;
    }
    let found = look(stand, way, step, &order, asked).await;
    println!("{way:?} {step}: {:?}", found.point);
    stand.dies().await;
    comes_right(stand, &order, &found).await;
    Some(found.point)
}

/// Waits until the process stands still, or the reservation is over.
async fn is_stopped(stand: &Stand, way: Way, order: &Order, asked: &Asked) -> bool {
    let proxy = way.proxy(stand);
    let over = eventually("the process stands still, or the reservation is over", || async {
        (asked.is_finished() && !stand.is_held(order).await).then_some(())
    });
    tokio::select! {
        _ = proxy.frozen() => {}
        () = over => {}
    }
    // The last write of all ends the reservation too.
    if proxy.is_frozen() {
        proxy.frozen().await;
    }
    proxy.is_frozen()
}

async fn look(stand: &Stand, way: Way, step: usize, order: &Order, asked: Asked) -> Found {
    // Behind the answer of the script nothing stops the commit and the answer to the caller, which may be under way
    // yet: a sweep that finds a slow commit writes to Redis as well.
    let is_answered = way == Way::Redis && step > 1;
    let answer = if is_answered { Some(reserved(asked.await.unwrap().unwrap())) } else { None };
    let is_held = stand.is_held(order).await;
    let units = i32::try_from(stand.sale.in_ledger(order).await).unwrap();
    let point = match (is_held, units > 0) {
        (false, false) => Point::BeforeScript,
        (true, false) if way == Way::Ledger && step > 0 => Point::InTransaction,
        (true, false) => Point::Granted,
        (true, true) if is_answered => Point::Answered,
        (true, true) => Point::Committed,
        (false, true) => Point::Copied,
    };
    Found { point, units, answer }
}

/// The process, started anew, makes of it what the ledger says.
async fn comes_right(stand: &Stand, order: &Order, found: &Found) {
    let sale = &stand.sale;
    sale.stock_becomes(0, sold(found.units, i32::from(found.units > 0))).await;
    assert_eq!(sale.in_ledger(order).await, i64::from(found.units), "after {:?}", found.point);
    let repeat = sale.reserved(order).await;
    for same in found.answer.iter().chain([&sale.reserved(order).await]) {
        assert_eq!(
            (same.arrival, &same.lines, same.commit_time),
            (repeat.arrival, &repeat.lines, repeat.commit_time),
            "after {:?}",
            found.point
        );
    }
    sale.stock_becomes(0, sold(UNITS, 1)).await;
    assert_eq!(sale.refusal(&order.again()).await, (RefusalReason::LimitReached, 0));
    let next = sale.reserved(&sale.order([UNITS, 0])).await;
    assert!(next.arrival > repeat.arrival, "a place of arrival is never given twice");
    assert_eq!(sale.refusal(&sale.order([UNITS, 0])).await, (RefusalReason::SoldOut, 1));
    sale.stock_becomes(0, sold(2 * UNITS, 2)).await;
}

/// Item 0 with so many units and gifts sold.
fn sold(units: i32, gifts: i32) -> Level {
    Level { left: 5 - units, committed: units, held: 0, left_gifts: 2 - gifts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_a_reservation_sells_nothing_twice_and_loses_nothing() {
    let mut stand = Stand::new().await;
    let of_ledger = walk(&mut stand, Way::Ledger).await;
    // What is written to the database behind the answer may be met as well.
    assert!(of_ledger.is_superset(&[Point::Granted, Point::InTransaction, Point::Committed].into()), "{of_ledger:?}");
    let of_redis = walk(&mut stand, Way::Redis).await;
    assert_eq!(of_redis, [Point::BeforeScript, Point::Granted, Point::Answered, Point::Copied].into());
    stand.sale.mesh.stop().await.unwrap();
}
