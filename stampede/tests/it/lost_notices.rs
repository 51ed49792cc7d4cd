//! The payment service is killed while it charges, and no notice of the provider arrives: buyers who have paid get the
//! goods or the money back soon after its restart.

use crate::{
    sale::{LONG, Sale, eur, fresh, in_us},
    webhook::LOOK_UPS,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_proto::event::v1::{CreateEventRequest, NewItem};
use stampede_testkit::{BreakAt, MeshBuilder, Process, Proxy, Service, World, as_operator, buyer, eventually, heavy};
use stampede_vocab::Timestamp;
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{Instant, sleep},
};

/// Time after its restart within which every order that was being paid has ended.
const SOON: Duration = Duration::from_secs(60);
/// Concurrent buyers.
const BUYERS: usize = 8;
/// Of so many orders that are being paid, one expires before the service is back.
const LATE_ONE_IN: usize = 10;
/// For so many orders that the provider has captured at the kill, there is one more whose charge never reached it.
const CAPTURED_FOR_ONE_LOST: usize = 10;
/// Most charges of an answer of the provider.
const PAGE: usize = 1_000;
/// An address that nobody listens on.
const NOBODY: &str = "http://127.0.0.1:9/v1/payments:webhook";

/// Orders that the provider has captured at the power cut: those of `STAMPEDE_TEST_PAYMENTS`, which is a thousand at
/// most.
fn many() -> usize {
    std::env::var("STAMPEDE_TEST_PAYMENTS").map_or(50, |count| count.parse().unwrap())
}

/// The schemas of orders and payments.
struct Schemas {
    orders: MySqlPool,
    payments: MySqlPool,
}

impl Schemas {
    async fn of(world: &World) -> Self {
        let url = |service| format!("{}?ssl-mode=disabled", world.service_database_url(service));
        let orders = MySqlPool::connect(&url(Service::Order)).await.unwrap();
        let payments = MySqlPool::connect(&url(Service::Payment)).await.unwrap();
        Self { orders, payments }
    }

    /// Returns the number of payments, and how many of them are open.
    async fn payments(&self) -> (usize, usize) {
        let counts = "SELECT COUNT(*), COUNT(CASE WHEN state = 'OPEN' THEN 1 END) FROM payments";
        let (all, open): (i64, i64) = sqlx::query_as(counts).fetch_one(&self.payments).await.unwrap();
        (usize::try_from(all).unwrap(), usize::try_from(open).unwrap())
    }

    /// Returns the number of orders by state.
    async fn states(&self) -> BTreeMap<String, usize> {
        let counts = "SELECT state, COUNT(*) FROM orders GROUP BY state";
        let counts: Vec<(String, i64)> = sqlx::query_as(counts).fetch_all(&self.orders).await.unwrap();
        counts.into_iter().map(|(state, count)| (state, usize::try_from(count).unwrap())).collect()
    }

    /// Sets the deadlines of so many orders that are being paid to now.
    async fn time_is_over(&self, count: usize) {
        let sql = format!("UPDATE orders SET pay_deadline_us = ? WHERE state = 'PAYING' ORDER BY id LIMIT {count}");
        let end = sqlx::query(AssertSqlSafe(sql)).bind(Timestamp::now().micros());
        end.execute(&self.orders).await.unwrap();
        eventually("their time is over", || async {
            (self.states().await.get("EXPIRED").copied().unwrap_or(0) == count).then_some(())
        })
        .await;
    }
}

/// A sale of so many units, without the payment service. The provider answers none of the slow cards in time, and sends
/// its notices to an address that nobody listens on. Returns the link of the payment service to its database too.
async fn sale(units: usize) -> (Sale, Proxy) {
    let world = World::prepared().await.unwrap();
    let link = Proxy::to_url(&world.service_database_url(Service::Payment)).await.unwrap();
    let started = Process::all().filter(|one| ![Process::Service(Service::Payment), Process::Gateway].contains(one));
    let mesh = MeshBuilder::default()
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .set(Service::Order, "STAMPEDE_ORDER_PAYING_GRACE_MS", 0)
        .set(Service::Payment, "STAMPEDE_DATABASE_URL", link.url())
        .set(Service::Payment, "STAMPEDE_PAYMENT_MAX_CHARGES_IN_FLIGHT", units)
        .set(Service::Payment, "STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 3_000)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_SLOW_MS", 120_000)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_MAX_REQUESTS_IN_FLIGHT", 4_096)
        .set(Process::Sandbox, "STAMPEDE_SANDBOX_WEBHOOK_URL", NOBODY)
        .start(&world, started)
        .await
        .unwrap();
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a sale with a power cut".to_owned(),
        open_time: in_us(Duration::from_millis(1_500)),
        close_time: in_us(LONG),
        items: vec![NewItem {
            title: "a kettle".to_owned(),
            unit_price: eur(1_999),
            total_units: i32::try_from(units).unwrap(),
            limit_per_buyer: 1,
            gift: None,
        }],
    };
    let event = mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    let sale = Sale { world, mesh, event };
    sale.until_open((0, 2)).await;
    (sale, link)
}

/// Buys a unit for each buyer. The provider captures so many charges, and loses the first request of the others.
async fn all_pay(sale: &Rc<Sale>, orders: usize, captured: usize) {
    let at_a_time = async {
        let mut buyers = JoinSet::new();
        for first in 0..BUYERS {
            let sale = sale.clone();
            buyers.spawn_local(async move {
                for number in (first..orders).step_by(BUYERS) {
                    let user = buyer();
                    let order = sale.placed(user, &[(0, 1)], "").await;
                    let card = if number < captured { "pm_card_timeout_captured" } else { "pm_card_timeout_lost" };
                    sale.pay(user, &order, card).await.unwrap();
                }
            });
        }
        while let Some(gone) = buyers.join_next().await {
            gone.unwrap();
        }
    };
    LocalSet::new().run_until(at_a_time).await;
}

/// Returns the number of the provider's charges.
async fn charges(sale: &Sale) -> usize {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let url = format!("{}/v1/charges?limit={PAGE}", sale.mesh.url(Process::Sandbox));
    let (mut count, mut behind) = (0, String::new());
    loop {
        let request = Request::get(format!("{url}{behind}")).body(Full::default()).unwrap();
        let body = client.request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let page: Value = serde_json::from_slice(&body).unwrap();
        let charges = page["charges"].as_array().unwrap();
        count += charges.len();
        match charges.last() {
            Some(last) if page["has_more"] == true => behind = format!("&after={}", last["id"].as_str().unwrap()),
            _ => return count,
        }
    }
}

/// Buys so many of the units that have become free.
async fn others_buy(sale: &Sale, units: usize) {
    for _ in 0..units {
        let (user, request) = (buyer(), fresh());
        eventually("a unit is free", || async { sale.place_as(user, &request, &[(0, 1)], "").await.ok() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_charged_at_a_power_cut_have_the_goods_or_the_money_within_a_minute() {
    let _permit = heavy().await;
    let captured = many();
    let orders = captured + captured / CAPTURED_FOR_ONE_LOST;
    let late = orders / LATE_ONE_IN;
    let refunded = late / 2;
    let (sale, link) = sale(orders).await;
    let sale = Rc::new(sale);
    let schemas = Schemas::of(&sale.world).await;
    all_pay(&sale, orders, captured).await;
    let mut sale = Rc::into_inner(sale).unwrap();

    // However long it takes until the cut, no charge is settled before it.
    let look_ups = link.keep_breaking(&[LOOK_UPS], BreakAt::Write);
    sale.mesh.restart(Service::Payment).await.unwrap();
    eventually("the provider has captured all that has reached it", || async {
        (charges(&sale).await >= captured && schemas.payments().await.0 == orders).then_some(())
    })
    .await;
    sale.mesh.kill_9(Service::Payment).unwrap();
    assert_eq!(schemas.payments().await, (orders, orders), "all of them are open");
    look_ups.mend();
    // Their units are released before their captures are found: half of them are sold again by then.
    schemas.time_is_over(late).await;
    others_buy(&sale, refunded).await;

    sale.mesh.restart(Service::Payment).await.unwrap();
    let back = Instant::now();
    let ended = [("FULFILLED", orders - refunded), ("REFUNDED", refunded), ("AWAITING_PAYMENT", refunded)];
    let ended: BTreeMap<String, usize> =
        ended.into_iter().filter(|(_, count)| *count > 0).map(|(state, count)| (state.to_owned(), count)).collect();
    loop {
        let states = schemas.states().await;
        if states == ended {
            break;
        }
        assert!(back.elapsed() < SOON, "after {SOON:?} there are {states:?} instead of {ended:?}");
        sleep(Duration::from_millis(100)).await;
    }
    println!(
        "all of {orders} payments were open, {captured} of them captured, and have ended {:?} after the return",
        back.elapsed()
    );
    assert_eq!(charges(&sale).await, orders, "each is charged once");
    sale.audit();
}
