//! The order service dies between the answer of the inventory and its own commit, at each write. What it has not
//! written gives its units back, what it has written keeps them, and whoever asks again gets an order either way.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    orders::{place, rows, with_order},
    sale::{Level, Order, Sale, prepared},
};
use stampede_db::Database;
use stampede_proto::order::v1::{self as proto, CancelOrderRequest, OrderState};
use stampede_testkit::{FreezeAt, Proxy, Service, Writes, as_buyer, eventually};
use std::collections::BTreeSet;
use tonic::Status;

/// More writes than an order takes.
const MOST_STEPS: usize = 20;
/// What the database is sent first of each transaction.
const BEGIN: &[u8] = b"\x03BEGIN";

/// Where the order service may die while it has the units of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    /// It has the answer of the inventory, and has not begun to write.
    Reserved,
    InTransaction,
    /// It has committed, and nobody was told.
    Written,
}

/// The sale, and what stands between the order service and its database.
struct Stand {
    sale: Sale,
    mysql: Proxy,
    orders: Database,
}

impl Stand {
    async fn new() -> Self {
        let world = prepared().await;
        let mysql = Proxy::to_url(&world.service_database_url(Service::Order)).await.unwrap();
        let mesh = with_order().set(Service::Order, "STAMPEDE_DATABASE_URL", mysql.url());
        let orders = world.database(Service::Order).await.unwrap();
        Self { sale: Sale::in_world(world, mesh, &[Service::Order]).await, mysql, orders }
    }

    /// Returns where it died; none if the order was placed before.
    async fn crash_at(&mut self, step: usize) -> Option<Point> {
        self.sale.begin_another().await;
        let order = self.sale.order([2, 0]);
        // A machine under load may take longer than an order may, which is then not written.
        loop {
            let at = if step == 0 { FreezeAt::Before(1) } else { FreezeAt::After(step) };
            self.mysql.freeze(Writes::From(BEGIN.to_vec()), at);
            let mut placing = tokio::spawn(self.place(&order));
            tokio::select! {
                _ = self.mysql.frozen() => break,
                placed = &mut placing => if placed.unwrap().is_ok() && !self.mysql.is_frozen() { return None },
            }
        }
        assert_eq!(self.sale.in_ledger(&order).await, 2, "the inventory has answered");
        let is_written = rows(&self.orders, "orders", "id", &order).await == 1;
        let point = match (step, is_written) {
            (0, _) => Point::Reserved,
            (_, false) => Point::InTransaction,
            (_, true) => Point::Written,
        };
        println!("{step}: {point:?}");
        self.sale.mesh.kill_9(Service::Order).unwrap();
        self.mysql.cut();
        self.sale.mesh.restart(Service::Order).await.unwrap();
        self.comes_right(&order, is_written).await;
        Some(point)
    }

    fn place(&self, order: &Order) -> impl Future<Output = Result<proto::Order, Status>> + Send + use<> {
        place(self.sale.mesh.order(), order.clone(), "order".to_owned())
    }

    async fn comes_right(&self, order: &Order, is_written: bool) {
        let sale = &self.sale;
        self.is_settled(order).await;
        assert_eq!(sale.in_ledger(order).await, if is_written { 2 } else { 0 });
        sale.stock_becomes(0, if is_written { SOLD } else { UNSOLD }).await;
        let again = eventually("the order is placed", || async { self.place(order).await.ok() }).await;
        assert_eq!((again.state(), again.order_id), (OrderState::AwaitingPayment, order.order_id.to_string()));
        self.is_settled(order).await;
        assert_eq!(sale.in_ledger(order).await, 2, "it keeps what it has written");
        sale.stock_becomes(0, SOLD).await;
        let cancel = CancelOrderRequest { order_id: order.order_id.to_string(), request_id: "cancel".into() };
        sale.mesh.order().cancel_order(as_buyer(order.buyer, cancel)).await.unwrap();
        sale.stock_becomes(0, UNSOLD).await;
        assert_eq!(sale.in_ledger(order).await, 0);
    }

    /// The inventory has asked whether the order is written.
    async fn is_settled(&self, order: &Order) {
        eventually("nobody waits for the order to be written", || async {
            (rows(&self.sale.inventory_db, "reservations", "order_id", order).await == 0).then_some(())
        })
        .await;
    }
}

const UNSOLD: Level = Level { left: 5, committed: 0, held: 0, left_gifts: 2 };
const SOLD: Level = Level { left: 3, committed: 2, held: 0, left_gifts: 1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_answer_and_the_order_gives_the_units_back_or_keeps_the_order() {
    let mut stand = Stand::new().await;
    let mut points = BTreeSet::new();
    for step in 0.. {
        assert!(step < MOST_STEPS, "an order takes more writes than that");
        let Some(point) = stand.crash_at(step).await else { break };
        points.insert(point);
    }
    assert_eq!(points, [Point::Reserved, Point::InTransaction, Point::Written].into());
    stand.sale.mesh.stop().await.unwrap();
}
