//! The audit must be able to fail: each promise is broken by hand, and the audit names what breaks it.

use crate::{
    breaks::{BREAKS, Break, GUARDS, Id},
    sale::{LONG, Sale},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::AssertSqlSafe;
use stampede_lua::{
    Redis, RedisConfig, coupon,
    stock::{Decision, LedgerCopy, LedgerUnits, Reservation, Stock, WantedLine},
};
use stampede_proto::{
    coupon::v1::Coupon,
    order::v1::{CancelOrderRequest, Order},
};
use stampede_testkit::{Service, as_buyer, buyer};
use stampede_vocab::{
    CampaignId, CouponId, EventId, Fingerprint, ItemId, OrderId, PaymentId, Quantity, RequestId, Timestamp, UserId,
};
use std::{fs, time::Duration};

/// Do not wait: nobody is left who would move anything.
const AT_ONCE: &[&str] = &["--quiet-deadline-s", "0"];

/// A sale with one order that was fulfilled with coupon and gift. The services are stopped, or they would mend it.
struct Sold {
    sale: Sale,
    order: Order,
    coupon: Coupon,
}

fn in_sql(id: &[u8]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("UNHEX('{hex}')")
}

impl Sold {
    async fn new() -> Self {
        let mut sale = Sale::open(LONG).await;
        let user = buyer();
        let coupon = sale.claim(user).await;
        let order = sale.bought(user, &[(0, 2)], &coupon.coupon_id).await;
        sale.audit();
        for service in Service::ALL {
            sale.mesh.kill_9(service).unwrap();
        }
        let sold = Self { sale, order, coupon };
        // As the sweep would, once the order is old enough.
        sold.run(&[(Service::Inventory, "DELETE FROM reservations")]).await;
        sold
    }

    fn event(&self) -> EventId {
        self.sale.event.event_id.parse().unwrap()
    }

    fn item(&self) -> ItemId {
        self.sale.event.items[0].item_id.parse().unwrap()
    }

    fn user(&self) -> UserId {
        self.order.user_id.parse().unwrap()
    }

    fn order(&self) -> OrderId {
        self.order.order_id.parse().unwrap()
    }

    fn coupon(&self) -> CouponId {
        self.coupon.coupon_id.parse().unwrap()
    }

    fn campaign(&self) -> CampaignId {
        self.coupon.campaign_id.parse().unwrap()
    }

    fn payment(&self) -> PaymentId {
        PaymentId::derive(self.order())
    }

    fn text(&self, id: Id) -> String {
        match id {
            Id::User => self.user().to_string(),
            Id::Order => self.order().to_string(),
            Id::Item => self.item().to_string(),
            Id::Event => self.event().to_string(),
            Id::Coupon => self.coupon().to_string(),
            Id::Campaign => self.campaign().to_string(),
            Id::Payment => self.payment().to_string(),
            Id::MadeUpOrder(byte) => OrderId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpItem(byte) => ItemId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpCoupon(byte) => CouponId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::MadeUpPayment(byte) => PaymentId::try_from_bytes(&[byte; 16]).unwrap().to_string(),
            Id::Text(text) => text.to_owned(),
        }
    }

    async fn run(&self, statements: &[(Service, &str)]) {
        let now_us = Timestamp::now().micros().to_string();
        let values = [
            ("{order}", in_sql(self.order().as_bytes())),
            ("{item}", in_sql(self.item().as_bytes())),
            ("{event}", in_sql(self.event().as_bytes())),
            ("{user}", in_sql(self.user().as_bytes())),
            ("{coupon}", in_sql(self.coupon().as_bytes())),
            ("{campaign}", in_sql(self.campaign().as_bytes())),
            ("{payment}", in_sql(self.payment().as_bytes())),
            ("{a}", in_sql(&[0xAA; 16])),
            ("{b}", in_sql(&[0xBB; 16])),
            ("{c}", in_sql(&[0xCC; 16])),
            ("{d}", in_sql(&[0xDD; 16])),
            ("{now}", now_us),
        ];
        for (service, statement) in statements {
            let sql = values.iter().fold((*statement).to_owned(), |sql, (name, value)| sql.replace(name, value));
            let db = self.sale.world.database(*service).await.unwrap();
            let mut connection = db.acquire().await.unwrap();
            let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await;
            done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// The audit says of this promise that this is wrong, and names this id.
    fn assert_named(&self, more: &[&str], named: &[(usize, &str, Id)]) {
        let audit = self.sale.run_audit(more);
        for (promise, what, id) in named {
            let (broken, id) = (&audit.promises[promise - 1], self.text(*id));
            assert_eq!((broken.number, broken.holds), (*promise, false), "{what}: {audit:#?}");
            let breach = broken.breaches.iter().find(|breach| breach.what == *what);
            let breach = breach.unwrap_or_else(|| panic!("{what} is not found: {audit:#?}"));
            assert!(breach.named.iter().any(|name| name.starts_with(&id)), "{what}: {id} is not named: {audit:#?}");
        }
    }

    fn assert_holds(&self) {
        let audit = self.sale.run_audit(AT_ONCE);
        assert!(audit.holds, "{audit:#?}");
    }

    async fn redis(&self) -> Redis {
        let world = &self.sale.world;
        let config = RedisConfig { url: world.redis_url().to_owned(), key_prefix: world.redis_key_prefix() };
        Redis::connect(config).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_promise_broken_by_hand_is_named() {
    let sold = Sold::new().await;
    sold.run(GUARDS).await;
    sold.assert_holds();
    for Break { by, mended_by, named } in BREAKS {
        sold.run(by).await;
        sold.assert_named(AT_ONCE, named);
        sold.run(mended_by).await;
    }
    sold.assert_holds();
    sold.assert_named(
        &[AT_ONCE, &["--open-within-ms", "0"]].concat(),
        &[(6, "events are later than 0 ms (p99)", Id::Text(""))],
    );
}

/// Syncs made-up figures of the ledger to Redis, as of the next version of the item's row.
async fn sync_redis(sold: &Sold, stock: &Stock, committed_units: i32, buyer_units: i32) {
    let snapshot = stock.snapshot(sold.event(), &[sold.item()]).await.unwrap();
    let version = snapshot.items[0].unwrap().ledger_version + 1;
    let ledger = LedgerUnits { committed_units, gift_committed_units: 1, version };
    let buyers = vec![(sold.user(), buyer_units)];
    let ledger_copy = LedgerCopy { item_id: sold.item(), ledger, first_version: version, buyers, all_buyers: false };
    stock.sync(sold.event(), &[ledger_copy], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_wrong_is_named() {
    let sold = Sold::new().await;
    let redis = sold.redis().await;
    let stock = Stock::new(redis.clone());

    sync_redis(&sold, &stock, 3, 2).await;
    let differs = "Redis has another number of committed units than the ledger";
    sold.assert_named(AT_ONCE, &[(5, differs, Id::Item)]);
    sync_redis(&sold, &stock, 2, 1).await;
    sold.assert_named(AT_ONCE, &[(5, "Redis has other units of a buyer than the ledger", Id::User)]);
    sync_redis(&sold, &stock, 2, 2).await;
    sold.assert_holds();

    let hold = Reservation {
        order_id: OrderId::try_from_bytes(&[0xAA; 16]).unwrap(),
        user_id: buyer(),
        fingerprint: Fingerprint::new([7; Fingerprint::LEN]),
        is_new: true,
        lines: vec![WantedLine { item_id: sold.item(), units: Quantity::new(1).unwrap() }],
    };
    let decisions = stock.reserve(sold.event(), std::slice::from_ref(&hold)).await.unwrap();
    let [Ok(Decision::Held(held))] = decisions.as_slice() else { panic!("not held: {decisions:?}") };
    sold.assert_named(
        AT_ONCE,
        &[(5, "units are still on hold in Redis", Id::Item), (5, "a hold is left in Redis", Id::MadeUpOrder(0xAA))],
    );
    stock.release(sold.event(), &[(hold.order_id, held.held_at)]).await.unwrap();
    sold.assert_holds();

    let claim = (buyer(), RequestId::parse("claim").unwrap());
    coupon::claim(&redis, sold.campaign(), std::slice::from_ref(&claim)).await.unwrap();
    sold.assert_named(
        AT_ONCE,
        &[
            (4, "a claim was ranked, but its coupon is not stored", Id::Campaign),
            (5, "a claim is neither stored nor refused", Id::Campaign),
        ],
    );
}

async fn send(sold: &Sold, topic: &str, id: u64, sequence: i64) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", sold.sale.world.brokers())
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    let (id, sequence) = (id.to_string(), sequence.to_string());
    let headers = [("ce_id", &id), ("ce_sequence", &sequence)]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    let record = FutureRecord::to(topic).key("ord_by_hand").payload("").headers(headers);
    producer.send(record, Duration::from_secs(20)).await.unwrap();
}

/// Void rows: the order was placed before, for the other item, and another order came as early as it did.
const VOID_ROWS: &[(Service, &str)] = &[
    (
        Service::Inventory,
        "INSERT INTO ledger SELECT l.order_id, s.item_id, l.user_id, l.event_id, 99, 1, 0, 'RELEASED', l.committed_at_us, l.committed_at_us, NULL, l.request_fingerprint, NULL FROM ledger l JOIN stock s ON s.item_id <> l.item_id WHERE l.order_id = {order}",
    ),
    (
        Service::Inventory,
        "INSERT INTO ledger SELECT {a}, item_id, {b}, event_id, arrival, units, 0, 'RELEASED', committed_at_us, committed_at_us, NULL, request_fingerprint, NULL FROM ledger WHERE order_id = {order} AND item_id = {item}",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_went_back_from_orders_that_were_never_written_are_no_breach() {
    let sold = Sold::new().await;
    sold.run(VOID_ROWS).await;
    sold.assert_holds();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_an_earlier_release_cancelled_while_pending_is_no_breach() {
    let mut sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    let request = CancelOrderRequest { order_id: order.order_id.clone(), request_id: "c".to_owned() };
    sale.mesh.order().cancel_order(as_buyer(user, request)).await.unwrap();
    sale.audit();
    for service in Service::ALL {
        sale.mesh.kill_9(service).unwrap();
    }
    let as_before =
        [(Service::Order, "UPDATE orders SET pay_deadline_us = NULL"), (Service::Inventory, "DELETE FROM ledger")];
    for (service, sql) in as_before {
        let db = sale.world.database(service).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *db.acquire().await.unwrap()).await.unwrap();
    }
    let audit = sale.run_audit(AT_ONCE);
    assert!(audit.holds, "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_on_a_topic_is_named() {
    let sold = Sold::new().await;
    let prefix = sold.sale.world.topic_prefix();
    let by_hand = Id::Text("ord_by_hand");

    send(&sold, &format!("{prefix}.order"), 1_000_001, 2).await;
    sold.assert_holds();
    send(&sold, &format!("{prefix}.order"), 1_000_002, 2).await;
    let out_of_order = "messages of one aggregate are out of order on order";
    sold.assert_named(AT_ONCE, &[(7, out_of_order, by_hand)]);

    send(&sold, &format!("{prefix}.order.payment.dlq"), 1_000_003, 1).await;
    sold.assert_named(AT_ONCE, &[(7, "a message of order could not be applied by payment", by_hand)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_missing_is_not_an_empty_one() {
    let sold = Sold::new().await;
    let error = sold.sale.failed_audit(&["--quiet-deadline-s", "0", "--kafka-topic-prefix", "nobody"]);
    assert!(error.contains("topic nobody.event"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_moves_fails_the_audit() {
    let mut sale = Sale::open(LONG).await;
    sale.placed(buyer(), &[(0, 1)], "").await;
    sale.audit();
    sale.mesh.kill_9(Service::Order).unwrap();
    let orders = sale.world.database(Service::Order).await.unwrap();
    let just_over = Timestamp::now().minus(Duration::from_secs(1)).micros();
    let overdue = format!("UPDATE orders SET pay_deadline_us = {just_over}");
    sqlx::raw_sql(AssertSqlSafe(overdue)).execute(&mut *orders.acquire().await.unwrap()).await.unwrap();
    let audit = sale.run_audit(AT_ONCE);
    assert!(audit.promises.iter().all(|promise| promise.holds), "{audit:#?}");
    assert_eq!((audit.holds, audit.still_moving), (false, vec!["1 orders over their deadline".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_in_its_time_is_not_taken_for_lost() {
    let sold = Sold::new().await;
    // As it is two days later: everything is that much older, and what was sent is purged.
    let two_days = 2 * 86_400_000_000_i64;
    let [events, opened, coupons] = [
        format!(
            "UPDATE events SET opens_at_us = opens_at_us - {two_days}, opened_at_us = opened_at_us - {two_days}, created_us = created_us - {two_days}, updated_us = updated_us - {two_days}"
        ),
        format!("UPDATE stock SET opens_at_us = opens_at_us - {two_days}"),
        format!("UPDATE coupons SET updated_us = updated_us - {two_days}"),
    ];
    sold.run(&[(Service::Event, &events), (Service::Inventory, &opened), (Service::Coupon, &coupons)]).await;
    for service in Service::ALL {
        sold.run(&[(service, "DELETE FROM outbox")]).await;
    }
    let audit = sold.sale.run_audit(AT_ONCE);
    assert!(audit.holds, "{audit:#?}");
    assert!(audit.left_out.iter().any(|what| what.contains("outboxes keep what was sent for a day")), "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_and_is_not_there_is_named() {
    let sold = Sold::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acknowledged.json");
    let audit_with = |orders: &[&str]| {
        let acknowledged = serde_json::json!({"orders": orders, "coupons": [sold.order.coupon_id]});
        fs::write(&file, acknowledged.to_string()).unwrap();
        sold.sale.run_audit(&["--acknowledged", file.to_str().unwrap()])
    };
    let order = sold.order.order_id.as_str();
    assert!(audit_with(&[order]).holds);
    // More than are printed for people.
    let lost: Vec<String> = (1..=30).map(|byte| OrderId::try_from_bytes(&[byte; 16]).unwrap().to_string()).collect();
    let audit = audit_with(&lost.iter().map(String::as_str).chain([order]).collect::<Vec<_>>());
    assert_eq!(audit.promises[3].breaches[0].named, lost);
}
