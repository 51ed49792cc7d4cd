//! The audit must be able to fail: each promise is broken by hand, and the audit names what breaks it.

use crate::sale::{LONG, Sale};
use sqlx::AssertSqlSafe;
use stampede_proto::order::v1::Order;
use stampede_testkit::{Service, buyer};
use std::fs;

/// A promise broken by SQL in one schema, and mended again.
struct Break {
    promise: usize,
    what: &'static str,
    schema: &'static str,
    /// `{order}`, `{item}`, `{user}`, `{payment}` and `{coupon}` stand for ids as SQL has them.
    by: &'static [&'static str],
    mended_by: &'static [&'static str],
}

const BREAKS: &[Break] = &[
    Break {
        promise: 1,
        what: "the ledger's rows do not add up to what is committed",
        schema: "inventory",
        by: &[
            "INSERT INTO ledger SELECT UNHEX(REPEAT('A', 32)), item_id, user_id, event_id, arrival, units, gift_units, state, committed_at_us, NULL FROM ledger WHERE order_id = {order} LIMIT 1",
        ],
        mended_by: &["DELETE FROM ledger WHERE order_id = UNHEX(REPEAT('A', 32))"],
    },
    Break {
        promise: 1,
        what: "a buyer has more than the limit",
        schema: "inventory",
        by: &["UPDATE stock SET limit_per_buyer = 1"],
        mended_by: &["UPDATE stock SET limit_per_buyer = 3 WHERE total_units = 10"],
    },
    Break {
        promise: 2,
        what: "a rank given twice",
        schema: "coupon",
        by: &[
            "ALTER TABLE coupons DROP PRIMARY KEY",
            "INSERT INTO coupons SELECT UNHEX(REPEAT('A', 32)), campaign_id, UNHEX(REPEAT('B', 32)), rank_no, campaign_quota, 'ISSUED', NULL, NULL, 'x', 1, created_us, updated_us FROM coupons WHERE id = {coupon}",
        ],
        mended_by: &["DELETE FROM coupons WHERE id = UNHEX(REPEAT('A', 32))"],
    },
    Break {
        promise: 3,
        what: "charged for units that the ledger never committed",
        schema: "inventory",
        by: &["UPDATE ledger SET order_id = UNHEX(REPEAT('C', 32)) WHERE order_id = {order}"],
        mended_by: &["UPDATE ledger SET order_id = {order} WHERE order_id = UNHEX(REPEAT('C', 32))"],
    },
    Break {
        promise: 3,
        what: "the provider moved another sum than we did",
        schema: "payment",
        by: &["UPDATE payments SET captured_minor = captured_minor - 1 WHERE order_id = {order}"],
        mended_by: &["UPDATE payments SET captured_minor = captured_minor + 1 WHERE order_id = {order}"],
    },
    Break {
        promise: 4,
        what: "a claim was ranked, but its coupon is not stored",
        schema: "coupon",
        by: &["CREATE TABLE kept AS SELECT * FROM coupons", "DELETE FROM coupons WHERE id = {coupon}"],
        mended_by: &["INSERT INTO coupons SELECT * FROM kept", "DROP TABLE kept"],
    },
    Break {
        promise: 5,
        what: "an order has ended, but its units are still taken",
        schema: "order",
        by: &["UPDATE orders SET state = 'EXPIRED' WHERE id = {order}"],
        mended_by: &["UPDATE orders SET state = 'FULFILLED' WHERE id = {order}"],
    },
    Break {
        promise: 5,
        what: "paid, but the gift is not what was promised",
        schema: "order",
        by: &["UPDATE goods SET kind = 'X' WHERE kind = 'GIFT' AND order_id = {order}"],
        mended_by: &["UPDATE goods SET kind = 'GIFT' WHERE kind = 'X' AND order_id = {order}"],
    },
    Break {
        promise: 6,
        what: "an event did not tell exactly once by EventOpened",
        schema: "event",
        by: &["UPDATE outbox SET type = 'stampede.message.v1.Other' WHERE type = 'stampede.message.v1.EventOpened'"],
        mended_by: &[
            "UPDATE outbox SET type = 'stampede.message.v1.EventOpened' WHERE type = 'stampede.message.v1.Other'",
        ],
    },
    Break {
        promise: 7,
        what: "a message of order did not take effect in inventory",
        schema: "inventory",
        by: &[
            "CREATE TABLE kept AS SELECT * FROM inbox WHERE source = '/stampede/order' ORDER BY message_id LIMIT 1",
            "DELETE FROM inbox WHERE source = '/stampede/order' ORDER BY message_id LIMIT 1",
        ],
        mended_by: &["INSERT INTO inbox SELECT * FROM kept", "DROP TABLE kept"],
    },
    Break {
        promise: 8,
        what: "an order without a place of arrival",
        schema: "order",
        by: &["UPDATE orders SET arrival = 0 WHERE id = {order}"],
        mended_by: &["UPDATE orders SET arrival = 1 WHERE id = {order}"],
    },
];

fn id_in_sql(id: &str) -> String {
    let order: stampede_vocab::OrderId = format!("ord_{}", &id[4..]).parse().unwrap();
    let hex: String = order.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    format!("UNHEX('{hex}')")
}

async fn run(sale: &Sale, schema: &str, statements: &[&str], order: &Order) {
    let db = sale.world.database(schema).await.unwrap();
    let mut connection = db.acquire().await.unwrap();
    for statement in statements {
        let sql =
            statement.replace("{order}", &id_in_sql(&order.order_id)).replace("{coupon}", &id_in_sql(&order.coupon_id));
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// A whole sale to break: one order fulfilled with coupon and gift. The services are stopped, or they would mend it.
async fn sold() -> (Sale, Order) {
    let mut sale = Sale::open(LONG).await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let order = sale.bought(user, &[(0, 2)], &coupon.coupon_id).await;
    sale.audit();
    for service in Service::SERVICES {
        sale.mesh.kill_9(service).unwrap();
    }
    (sale, order)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_promise_broken_by_hand_is_named() {
    let (sale, order) = sold().await;
    for Break { promise, what, schema, by, mended_by } in BREAKS {
        run(&sale, schema, by, &order).await;
        let audit = sale.run_audit(&["--quiet-deadline-s", "0"]);
        let broken = &audit.promises[promise - 1];
        assert_eq!((broken.number, broken.holds), (*promise, false), "{what}: {audit:#?}");
        let breach = broken.breaches.iter().find(|breach| breach.what == *what);
        assert!(breach.is_some_and(|breach| !breach.named.is_empty()), "{what} is not named: {audit:#?}");
        run(&sale, schema, mended_by, &order).await;
        let mended = sale.run_audit(&["--quiet-deadline-s", "0"]);
        assert!(mended.holds(), "{what} was mended: {mended:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_and_is_not_there_is_named() {
    let (sale, order) = sold().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acknowledged.json");
    let audit_with = |orders: &[&str]| {
        fs::write(&file, serde_json::json!({"orders": orders, "coupons": [order.coupon_id]}).to_string()).unwrap();
        sale.run_audit(&["--acknowledged", file.to_str().unwrap()])
    };
    assert!(audit_with(&[&order.order_id]).holds());
    let lost = "ord_0000000000000000000000001a";
    let audit = audit_with(&[&order.order_id, lost]);
    assert_eq!(audit.promises[3].breaches[0].named, [lost]);
}
