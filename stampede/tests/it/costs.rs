//! Ceilings of an order's cost in the servers, from the click to the goods. A change that is worth another row raises
//! the ceiling here, with the reason.

use crate::{
    counters::{Costs, Counters, Tally},
    sale::{LONG, Sale, eur, fresh, in_us},
};
use sqlx::MySqlPool;
use stampede_proto::{
    coupon::v1::{ClaimCouponRequest, CreateCampaignRequest},
    event::v1::{CreateEventRequest, NewItem},
};
use stampede_testkit::{MeshBuilder, Process, Proxy, Service, World, as_buyer, as_operator, buyer, eventually, heavy};
use stampede_vocab::UserId;
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::task::{JoinSet, LocalSet};

/// Orders of one line, without a gift, that are paid with a good card.
const ORDERS: i64 = 200;
/// Concurrent buyers.
const BUYERS: usize = 8;
/// How long an order may take to be written: more than it does on a machine under load. Half as long after it every
/// order is looked up, which is to be counted too, and so is waited for.
const WRITE_LIMIT_MS: u64 = 3_000;

/// The ceiling of a count for a hundred orders.
type Ceiling = (&'static str, i64);

/// Rows of an order without a coupon, by table and by statement. A table that is not named is never written for an
/// order.
const ROWS: [Ceiling; 12] = [
    ("inventory.ledger INSERT", 100),
    // One more for a call that was retried.
    ("inventory.reservations DELETE", 110),
    ("inventory.reservations INSERT", 110),
    // One for all orders of a batch.
    ("inventory.stock UPDATE", 100),
    // With its lines, its payments and its goods.
    ("order.orders INSERT", 100),
    ("order.orders UPDATE", 200),
    ("order.outbox INSERT", 300),
    ("payment.attempts INSERT", 100),
    // Leased as it is written, and settled. One that finds all of its process busy is leased again, by whoever is free:
    // 118 were seen on a busy machine.
    ("payment.attempts UPDATE", 125),
    ("payment.outbox INSERT", 100),
    ("payment.payments INSERT", 100),
    ("payment.payments UPDATE", 100),
];
/// Additional rows of a coupon: it is held as the order is placed, and used once it is fulfilled.
const ROWS_OF_COUPON: [Ceiling; 1] = [("coupon.coupons UPDATE", 200)];
/// Messages, by the service that writes them. A coupon adds none.
const MESSAGES: [Ceiling; 2] = [("order", 300), ("payment", 100)];
/// All of these together: less than the sum of their ceilings, of which no run meets each.
const ALL_ROWS: i64 = 1_510;
/// Entries of secondary indexes that inserted rows have: ten, and some for calls that were retried.
const INDEX_ENTRIES: i64 = 1_010;
/// Transactions, without those that claim work, of which there is one for each poll. Six for an order that shares none
/// with others, and some for calls that were retried and messages that came twice.
const TRANSACTIONS: i64 = 800;
/// Statements of the transactions that write, with their BEGIN and COMMIT. 38 for an order that shares none.
const STATEMENTS: i64 = 4_500;

/// Allowances beyond the ceilings of an order.
struct OnTop {
    rows: &'static [Ceiling],
    transactions: i64,
    statements: i64,
}

const NOTHING: OnTop = OnTop { rows: &[], transactions: 0, statements: 0 };
/// Its hold, its use, and the polls for holds that were forgotten.
const COUPON: OnTop = OnTop { rows: &ROWS_OF_COUPON, transactions: 300, statements: 1_500 };

/// A buyer, and the coupon to buy with; empty without one.
type Purchase = (UserId, String);

/// A mesh with an open event, and counters of all writes.
async fn counted_sale() -> (Sale, Counters) {
    let world = World::prepared().await.unwrap();
    let mut counters = Counters {
        database_url: world.database_url().to_owned(),
        schema_prefix: world.schema_prefix(),
        brokers: world.brokers().to_owned(),
        topic_prefix: world.topic_prefix().to_owned(),
        services: Service::ALL.map(Service::name).to_vec(),
        admin_urls: Vec::new(),
        links: BTreeMap::new(),
    };
    // Before any process is connected, or the triggers would wait for locks on the tables.
    counters.install().await;
    // On a busy machine a charge may take longer than a request to the provider does by default, and would be looked
    // up.
    let settings = MeshBuilder::default().set_all("STAMPEDE_PAYMENT_PROVIDER_TIMEOUT_MS", 20_000);
    let settings = settings.set(Service::Order, "STAMPEDE_ORDER_PAYING_GRACE_MS", 60_000);
    let mut settings = settings
        .set(Service::Order, "STAMPEDE_PAY_WINDOW_MS", LONG.as_millis())
        .set(Service::Order, "STAMPEDE_ORDER_WRITE_LIMIT_MS", WRITE_LIMIT_MS)
        .set(Service::Inventory, "STAMPEDE_ORDER_WRITE_LIMIT_MS", WRITE_LIMIT_MS)
        .set(Service::Inventory, "STAMPEDE_INVENTORY_UNWRITTEN_ORDER_AGE_MS", WRITE_LIMIT_MS * 3 / 2);
    for service in Service::ALL {
        let link = Proxy::to_url(&world.service_database_url(service)).await.unwrap();
        settings = settings.set(service, "STAMPEDE_DATABASE_URL", link.url());
        counters.links.insert(service, link);
    }
    let mesh = settings.start(&world, Process::all()).await.unwrap();
    counters.admin_urls = Service::ALL.map(|service| mesh.admin_url(service)).to_vec();
    let request = CreateEventRequest {
        request_id: fresh(),
        name: "a sale that is counted".to_owned(),
        open_time: in_us(Duration::from_millis(1_500)),
        close_time: in_us(LONG),
        items: vec![NewItem {
            title: "a kettle".to_owned(),
            unit_price: eur(1_999),
            total_units: i32::try_from(3 * ORDERS).unwrap(),
            limit_per_buyer: 1,
            gift: None,
        }],
    };
    let event = mesh.event().create_event(as_operator(request)).await.unwrap().into_inner().event.unwrap();
    let sale = Sale { world, mesh, event };
    sale.until_open((0, 2)).await;
    (sale, counters)
}

fn without_coupons() -> Vec<Purchase> {
    (0..ORDERS).map(|_| (buyer(), String::new())).collect()
}

/// Buyers who have claimed a coupon each.
async fn with_coupons(sale: &Sale) -> Vec<Purchase> {
    let request = CreateCampaignRequest {
        request_id: fresh(),
        name: "ten off".to_owned(),
        quota: i32::try_from(ORDERS).unwrap(),
        discount: eur(1_000),
        event_id: sale.event.event_id.clone(),
        open_time: in_us(Duration::ZERO),
        close_time: in_us(LONG),
    };
    let created = sale.mesh.coupon().create_campaign(as_operator(request)).await.unwrap().into_inner();
    let campaign_id = created.campaign.unwrap().campaign_id;
    let mut purchases = Vec::new();
    for _ in 0..ORDERS {
        let user = buyer();
        let coupon = eventually("the campaign takes claims", || async {
            let request = ClaimCouponRequest { campaign_id: campaign_id.clone(), request_id: "claim".to_owned() };
            sale.mesh.coupon().claim_coupon(as_buyer(user, request)).await.ok()?.into_inner().coupon
        })
        .await;
        purchases.push((user, coupon.coupon_id));
    }
    purchases
}

/// Buys units one after the other.
async fn buy(sale: Rc<Sale>, purchases: Vec<Purchase>) {
    for (user, coupon) in purchases {
        sale.bought(user, &[(0, 1)], &coupon).await;
    }
}

async fn buy_all(sale: &Rc<Sale>, purchases: &[Purchase]) {
    let at_a_time = LocalSet::new();
    let all = async {
        let mut buyers = JoinSet::new();
        for share in purchases.chunks(purchases.len() / BUYERS) {
            buyers.spawn_local(buy(Rc::clone(sale), share.to_vec()));
        }
        while let Some(done) = buyers.join_next().await {
            done.unwrap();
        }
    };
    at_a_time.run_until(all).await;
}

/// Waits until nothing is moving, and the sweep has looked up each order.
async fn settle(sale: &Sale) {
    sale.audit();
    let url = format!("{}?ssl-mode=disabled", sale.world.service_database_url(Service::Inventory));
    let inventory = MySqlPool::connect(&url).await.unwrap();
    eventually("every order is known to be written", || async {
        let asked: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM reservations").fetch_one(&inventory).await.ok()?;
        (asked == 0).then_some(())
    })
    .await;
}

/// Returns the counts above their ceilings. Without a ceiling none is allowed.
fn beyond(counted: &Tally, ceilings: &[Ceiling]) -> Vec<String> {
    let most_of = |name: &str| ceilings.iter().find(|(of, _)| *of == name).map_or(0, |(_, most)| *most);
    let over = counted.iter().filter(|(name, count)| 100 * **count > most_of(name) * ORDERS);
    over.map(|(name, count)| format!("{name}: {count} of {ORDERS} orders, {} of 100 at most", most_of(name))).collect()
}

fn sum(tally: &Tally) -> i64 {
    tally.values().sum()
}

/// Counts the costs of these purchases.
async fn counted(sale: &Rc<Sale>, counters: &Counters, purchases: &[Purchase]) -> Costs {
    settle(sale).await;
    let before = counters.read().await;
    buy_all(sale, purchases).await;
    settle(sale).await;
    counters.read().await.since(&before)
}

/// Checks that the costs are within the ceilings of an order and its allowances.
fn assert_within(costs: &Costs, on_top: &OnTop) {
    let table = costs.per_order(ORDERS);
    println!("{table}");
    // These exact counts show that rows are counted at all.
    for name in ["order.orders INSERT", "inventory.ledger INSERT"] {
        assert_eq!(costs.rows.get(name), Some(&ORDERS), "{name}:\n{table}");
    }
    let rows = [&ROWS[..], on_top.rows].concat();
    let rows_in_all = ALL_ROWS + on_top.rows.iter().map(|(_, most)| most).sum::<i64>();
    let beyond = [beyond(&costs.rows, &rows), beyond(&costs.messages, &MESSAGES)].concat();
    assert!(beyond.is_empty(), "{beyond:#?}\n{table}");
    let transactions = costs.transactions.iter().filter(|(name, _)| !name.starts_with("claim_"));
    for (what, count, most) in [
        ("rows", sum(&costs.rows), rows_in_all),
        ("index entries", sum(&costs.index_entries), INDEX_ENTRIES),
        ("transactions", transactions.map(|(_, count)| count).sum(), TRANSACTIONS + on_top.transactions),
        ("statements", sum(&costs.statements), STATEMENTS + on_top.statements),
    ] {
        assert!(count > 0 && 100 * count <= most * ORDERS, "{count} {what} of {ORDERS} orders:\n{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_writes_no_more_than_it_has_to_and_a_coupon_adds_no_more_than_its_hold_and_its_use() {
    let _permit = heavy().await;
    let (sale, counters) = counted_sale().await;
    let sale = Rc::new(sale);
    let costs = counted(&sale, &counters, &without_coupons()).await;
    assert_within(&costs, &NOTHING);

    let purchases = with_coupons(&sale).await;
    let costs = counted(&sale, &counters, &purchases).await;
    assert_eq!(costs.rows.get("coupon.coupons UPDATE"), Some(&(2 * ORDERS)), "{}", costs.per_order(ORDERS));
    assert_within(&costs, &COUPON);
}
