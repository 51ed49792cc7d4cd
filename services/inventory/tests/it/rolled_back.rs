//! Redis comes back with what it had two seconds ago, while a crowd buys from two replicas.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use crate::{
    random::Random,
    sale::{Level, Order, Sale, quick},
};
use futures_util::future::join_all;
use stampede_proto::inventory::v1::{
    self as proto, inventory_service_client::InventoryServiceClient, reservation_result::Outcome,
};
use stampede_testkit::{OwnRedis, Service, as_operator, as_order_service, eventually};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

const CALLERS: usize = 16;
/// Between two requests of one caller.
const PAUSE: Duration = Duration::from_millis(15);
/// How old the copy is.
const AGE: Duration = Duration::from_secs(2);
/// More than are asked for, and so few that they are sold out before Redis is rolled back or soon after.
const TOTALS: [i32; 2] = [20_000, 100];
const LIMITS: [i32; 2] = [2, 1];
/// Orders that are repeated at the end.
const REPEATED: usize = 200;

/// What one caller was told.
struct Accepted {
    order: Order,
    reserved: proto::Reserved,
}

/// The crowd, and how many of it have got something.
struct Crowd<'s> {
    sale: &'s Sale,
    replicas: Vec<InventoryServiceClient<Channel>>,
    accepted: AtomicUsize,
    is_over: CancellationToken,
}

impl<'s> Crowd<'s> {
    fn of(sale: &'s Sale) -> Self {
        let replicas = sale.mesh.replica_channels(Service::Inventory);
        let replicas = replicas.into_iter().map(InventoryServiceClient::new).collect();
        Self { sale, replicas, accepted: AtomicUsize::new(0), is_over: CancellationToken::new() }
    }

    /// Buys, repeats and wants more than the limit until it is over. Returns what it has.
    async fn buy(&self, caller: usize) -> Vec<Accepted> {
        let (mut random, mut has): (Random, Vec<Accepted>) = (Random::new(caller as u64), Vec::new());
        while !self.is_over.is_cancelled() {
            let earlier = (!has.is_empty()).then(|| &has[random.below(has.len())].order);
            let order = match (random.below(8), earlier) {
                (0, Some(earlier)) => earlier.again(),
                (1, Some(earlier)) => earlier.clone(),
                (2, _) => self.sale.order([0, 1]),
                _ => self.sale.order([1, 0]),
            };
            let replica = &self.replicas[caller % self.replicas.len()];
            if let Some(reserved) = ask(replica.clone(), &order).await {
                match has.iter().find(|earlier| earlier.order.order_id == order.order_id) {
                    Some(first) => assert_same(&first.reserved, &reserved),
                    None => has.push(Accepted { order, reserved }),
                }
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            sleep(PAUSE).await;
        }
        has
    }

    /// Waits until so many more have got something.
    async fn goes_on(&self) {
        let before = self.accepted.load(Ordering::Relaxed);
        eventually("the crowd goes on buying", || async {
            (self.accepted.load(Ordering::Relaxed) >= before + 100).then_some(())
        })
        .await;
    }
}

/// Redis may be away, or know too little: whoever is refused, or not answered, has nothing.
async fn ask(mut replica: InventoryServiceClient<Channel>, order: &Order) -> Option<proto::Reserved> {
    let request = proto::ReserveRequest { reservations: vec![order.reservation()] };
    let response = replica.reserve(as_order_service(request)).await.ok()?;
    match response.into_inner().results.remove(0).outcome? {
        Outcome::Reserved(reserved) => Some(reserved),
        Outcome::Refusal(_) => None,
    }
}

fn assert_same(first: &proto::Reserved, repeat: &proto::Reserved) {
    assert_eq!((first.arrival, &first.lines, first.commit_time), (repeat.arrival, &repeat.lines, repeat.commit_time));
}

async fn staged_on(redis: &OwnRedis) -> Sale {
    let mesh = quick().set(Service::Inventory, "STAMPEDE_REDIS_URL", redis.url()).replicas(Service::Inventory, 2);
    let sale = Sale::with(mesh, &[]).await;
    let mut shelf = sale.shelf(1);
    for (item, total_units) in shelf.items.iter_mut().zip(TOTALS) {
        item.total_units = total_units;
    }
    sale.api().stage_stock(as_operator(shelf)).await.unwrap();
    sale
}

/// Units of an item in the ledger, and how many buyers have more than the limit.
async fn sold(sale: &Sale, index: usize) -> (i32, i64) {
    let of_item =
        "SELECT user_id, SUM(units) AS units FROM ledger WHERE item_id = ? AND state = 'COMMITTED' GROUP BY 1";
    let query = format!(
        "SELECT CAST(COALESCE(SUM(units), 0) AS SIGNED), CAST(COALESCE(SUM(units > ?), 0) AS SIGNED) FROM ({of_item}) b"
    );
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let sums = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(LIMITS[index]).bind(sale.item(index).uuid());
    let (units, over): (i64, i64) = sums.fetch_one(&mut *conn).await.unwrap();
    (i32::try_from(units).unwrap(), over)
}

async fn orders_in_ledger(sale: &Sale) -> BTreeSet<Uuid> {
    let mut conn = sale.inventory_db.acquire().await.unwrap();
    let query = "SELECT DISTINCT order_id FROM ledger WHERE event_id = ? AND state = 'COMMITTED'";
    let orders: Vec<Uuid> = sqlx::query_scalar(query).bind(sale.event_id.uuid()).fetch_all(&mut *conn).await.unwrap();
    orders.into_iter().collect()
}

/// Nothing is sold twice, nobody is over the limit, and Redis comes to show what the ledger has.
async fn is_right(sale: &Sale) {
    for index in [0, 1] {
        let (committed, over) = sold(sale, index).await;
        assert!(committed <= TOTALS[index], "{committed} units of item {index} are sold");
        assert_eq!(over, 0, "buyers of item {index} who are over the limit");
        eventually(&format!("what is committed of item {index} is shown"), || async {
            let (committed, _) = sold(sale, index).await;
            let Level { left, committed: shown, held, .. } = sale.stock(index).await?;
            ((left, shown, held) == (TOTALS[index] - committed, committed, 0)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_goes_back_two_seconds_under_load_sells_nothing_twice() {
    let redis = OwnRedis::durable().await.unwrap();
    let sale = staged_on(&redis).await;
    let crowd = Crowd::of(&sale);
    let goes_back = async {
        crowd.goes_on().await;
        let copy = redis.copy().unwrap();
        sleep(AGE).await;
        let redis = redis.restart_with(copy).await.unwrap();
        crowd.goes_on().await;
        crowd.is_over.cancel();
        redis
    };
    let (bought, _redis) = tokio::join!(join_all((0..CALLERS).map(|caller| crowd.buy(caller))), goes_back);
    is_right(&sale).await;
    let accepted: Vec<Accepted> = bought.into_iter().flatten().collect();
    let arrivals: BTreeSet<i64> = accepted.iter().map(|accepted| accepted.reserved.arrival).collect();
    assert_eq!(arrivals.len(), accepted.len(), "a place of arrival is never given twice");
    let in_ledger = orders_in_ledger(&sale).await;
    for Accepted { order, .. } in &accepted {
        assert!(in_ledger.contains(&order.order_id.uuid()), "{} was answered and is not in the ledger", order.order_id);
    }
    for Accepted { order, reserved } in accepted.iter().step_by(accepted.len() / REPEATED + 1) {
        assert_same(reserved, &sale.reserved(order).await);
    }
    is_right(&sale).await;
}
