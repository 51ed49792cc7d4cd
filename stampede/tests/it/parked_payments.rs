//! Anomalies of payments, listed and settled by the operator's own command while a mesh runs.

use crate::{
    command::{err, json_error, out, stampede},
    provider::ask,
    sale::{LONG, Sale},
    webhook::{captured, notify},
};
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use stampede_proto::{
    coupon::v1::CouponState,
    order::v1::{Order, OrderState},
};
use stampede_testkit::{MeshBuilder, Service, World, buyer, eventually};
use stampede_vocab::{OrderId, PaymentId};
use std::process::Command;

fn payments(world: &World, args: &[&str]) -> Command {
    let mut command = stampede(args);
    command
        .env("STAMPEDE_ADMIN_DATABASE_URL", world.database_url())
        .env("STAMPEDE_SCHEMA_PREFIX", world.schema_prefix())
        .env("USER", "somebody");
    command
}

/// The exit code, and the document on stdout.
fn run(world: &World, args: &[&str]) -> (Option<i32>, Value) {
    let output = payments(world, &[&["-o", "json", "payments"][..], args].concat()).output().unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), document)
}

/// Writes an anomaly of the first attempt of this order's payment, as the service does. Returns its id.
async fn anomaly(world: &World, order: &Order, subject: &str, kind: &str) -> String {
    let db = world.database(Service::Payment).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    let order: OrderId = order.order_id.parse().unwrap();
    let insert =
        "INSERT INTO anomalies (payment_id, attempt, subject, kind, detail, found_us) VALUES (?, 1, ?, ?, 'odd', 1)";
    let insert = sqlx::query(insert).bind(PaymentId::derive(order).uuid()).bind(subject).bind(kind);
    insert.execute(&mut *conn).await.unwrap().last_insert_id().to_string()
}

async fn sql(world: &World, sql: &str) -> u64 {
    let db = world.database(Service::Payment).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *conn).await.unwrap().rows_affected()
}

/// Parks the charge that is under way, as if the provider had not reported its end for too long.
async fn park(world: &World) {
    eventually("the charge is parked", || async {
        let park = "UPDATE attempts SET state = 'PARKED', due_us = NULL WHERE state = 'UNKNOWN'";
        (sql(world, park).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_charge_goes_on_after_a_decision_with_its_reason() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    sale.pay(user, &order, "pm_card_late").await.unwrap();
    park(&sale.world).await;
    let id = anomaly(&sale.world, &order, "CHARGE", "NO_ANSWER").await;

    let (code, page) = run(&sale.world, &["list"]);
    assert_eq!((code, &page["anomalies"][0]["kind"]), (Some(0), &Value::from("NO_ANSWER")), "{page}");
    let (_, shown) = run(&sale.world, &["show", &id]);
    assert_eq!((&shown["order_id"], &shown["attempt_state"]), (&order.order_id.as_str().into(), &"PARKED".into()));
    assert_eq!(shown["verdicts"], json!(["RETRY", "DECLINED"]));

    // Without --yes; without a reason; with a decision that does not fit.
    let (code, said) = run(&sale.world, &["settle", &id, "--as", "retry"]);
    assert_eq!((code, &said["is_settled"], &said["anomaly"]["state"]), (Some(0), &false.into(), &"OPEN".into()));
    for args in [
        &["payments", "settle", &id, "--as", "retry", "--yes"][..],
        &["payments", "settle", &id, "--as", "noted", "--yes", "--why", "x"],
        &["payments", "settle", "99999", "--as", "noted", "--yes", "--why", "x"],
    ] {
        let output = payments(&sale.world, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
    }

    let decide = ["settle", &id, "--as", "retry", "--yes", "--why", "asked the provider"];
    let (code, settled) = run(&sale.world, &decide);
    assert_eq!((code, &settled["is_settled"]), (Some(0), &true.into()), "{settled}");
    assert_eq!(settled["anomaly"]["decided"]["by"], "somebody");
    assert_eq!(settled["anomaly"]["decided"]["why"], "asked the provider");
    sale.until(user, &order, OrderState::Fulfilled).await;

    // It is decided on once.
    let (code, again) = run(&sale.world, &decide);
    assert_eq!((code, &again["decided"]), (Some(1), &Value::Null), "{again}");
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_parked_for_one_reason_is_asked_for_again_at_once() {
    let sale = Sale::open(LONG).await;
    let bought = sale.bought(buyer(), &[(0, 1)], "").await;
    let mut orders = Vec::new();
    for user in [buyer(), buyer()] {
        orders.push((user, sale.placed(user, &[(0, 1)], "").await));
    }
    for (user, order) in &orders {
        sale.pay(*user, order, "pm_card_late").await.unwrap();
        park(&sale.world).await;
        anomaly(&sale.world, order, "CHARGE", "REFUSED").await;
    }
    let noted = anomaly(&sale.world, &bought, "CHARGE", "REFUSED").await;

    let retry = ["settle", "--kind", "REFUSED", "--as", "retry"];
    let (code, one) = run(&sale.world, &[&retry[..], &["--limit", "1"]].concat());
    assert_eq!((code, &one["found"], &one["has_more"]), (Some(0), &1.into(), &true.into()), "{one}");
    let (code, said) = run(&sale.world, &retry);
    assert_eq!((code, &said["found"], &said["has_more"]), (Some(0), &2.into(), &false.into()), "{said}");
    assert_eq!((&said["settled"], &said["anomalies"][0]["state"]), (&0.into(), &"OPEN".into()), "{said}");
    let (_, none) = run(&sale.world, &["settle", "--kind", "KEY_EXPIRED", "--as", "retry"]);
    assert_eq!(none["found"], 0, "{none}");

    let (code, settled) = run(&sale.world, &[&retry[..], &["--yes", "--why", "the proxy answered"]].concat());
    assert_eq!((code, &settled["settled"]), (Some(0), &2.into()), "{settled}");
    assert_eq!(settled["anomalies"][1]["decided"]["why"], "the proxy answered");
    for (user, order) in &orders {
        sale.until(*user, order, OrderState::Fulfilled).await;
    }
    let (code, last) = run(&sale.world, &["settle", &noted, "--as", "noted", "--yes", "--why", "not parked"]);
    assert_eq!((code, &last["is_settled"]), (Some(0), &true.into()), "{last}");
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_after_an_operator_declined_it_is_refunded_and_every_promise_holds() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.placed(user, &[(0, 1)], "").await;
    let paying = sale.pay(user, &order, "pm_card_late").await.unwrap();
    park(&sale.world).await;
    let id = anomaly(&sale.world, &order, "CHARGE", "NO_ANSWER").await;
    let (code, settled) =
        run(&sale.world, &["settle", &id, "--as", "declined", "--yes", "--why", "the provider has no such charge"]);
    assert_eq!((code, &settled["is_settled"]), (Some(0), &true.into()), "{settled}");
    sale.until(user, &order, OrderState::AwaitingPayment).await;
    sale.pay(user, &order, "pm_card_ok").await.unwrap();
    sale.until(user, &order, OrderState::Fulfilled).await;

    // It had one, and captures it after all.
    let key = format!("{}:1", paying.payment_id);
    let charge_id = captured(&sale, &key).await;
    let notice = json!({
        "type": "charge.captured", "key": key, "charge_id": charge_id, "amount_minor": 1_999, "currency": "EUR",
        "status": "captured",
    });
    let notice = notice.to_string();
    let (status, problem) = notify(&sale, "application/json", &notice, &notice).await;
    assert_eq!(status, StatusCode::OK, "{problem}");
    sale.audit();
    let refunded = "UPDATE refunds SET updated_us = updated_us + 1 WHERE attempt = 1 AND state = 'REFUNDED'";
    assert_eq!(sql(&sale.world, refunded).await, 1, "the late capture is back");
    sale.mesh.stop().await.unwrap();
}

/// A sale whose payment service polls the provider's list of refunds often.
async fn open_with_fast_sweep() -> Sale {
    let settings = MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_REFUND_SWEEP_INTERVAL_MS", 200);
    Sale::open_on(settings, LONG).await
}

/// Refunds an order in full, by hand at the provider, and waits until that is found. Returns the id of the anomaly.
async fn given_back_by_hand(sale: &Sale, order: &Order) -> String {
    let charge_id = captured(sale, &format!("{}:1", order.payment_id)).await;
    let all = json!({"charge_id": charge_id, "amount_minor": order.total.as_ref().unwrap().minor_units});
    ask(sale, "/v1/refunds", &format!("by-hand-{}", order.order_id), &all).await;
    let found = eventually("the refund by hand is found", || async {
        let (_, page) = run(&sale.world, &["list"]);
        page["anomalies"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&found["kind"], &found["verdicts"]), (&"REFUNDED_ELSEWHERE".into(), &json!(["REFUNDED", "NOTED"])));
    found["id"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_by_hand_ends_its_order_once_an_operator_has_it_booked() {
    let sale = open_with_fast_sweep().await;
    let user = buyer();
    let coupon = sale.claim(user).await;
    let order = sale.bought(user, &[(0, 2)], &coupon.coupon_id).await;
    let left = sale.stock(0).await;
    let id = given_back_by_hand(&sale, &order).await;
    // Nobody has decided so far whether the goods come back.
    assert_eq!(sale.get(user, &order).await.state(), OrderState::Fulfilled);

    let (code, settled) = run(&sale.world, &["settle", &id, "--as", "refunded", "--yes", "--why", "they sent it back"]);
    assert_eq!((code, &settled["is_settled"]), (Some(0), &true.into()), "{settled}");
    sale.until(user, &order, OrderState::Refunded).await;
    sale.until_left(0, left.left_units + 2, 2).await;
    sale.until_coupon(user, &coupon, CouponState::Issued).await;
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_by_hand_that_is_noted_leaves_the_goods_with_the_buyer() {
    let sale = open_with_fast_sweep().await;
    let user = buyer();
    let order = sale.bought(user, &[(0, 1)], "").await;
    let left = sale.stock(0).await;
    let id = given_back_by_hand(&sale, &order).await;
    let (code, settled) = run(&sale.world, &["settle", &id, "--as", "noted", "--yes", "--why", "a gift of the house"]);
    assert_eq!((code, &settled["is_settled"]), (Some(0), &true.into()), "{settled}");
    sale.audit();
    assert_eq!(sale.get(user, &order).await.state(), OrderState::Fulfilled);
    assert_eq!(sale.stock(0).await.left_units, left.left_units);
    sale.mesh.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_anomaly_that_blocks_nothing_is_noted() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.bought(user, &[(0, 1)], "").await;
    let id = anomaly(&sale.world, &order, "REFUND", "REFUNDED_ELSEWHERE").await;
    let broken = sale.run_audit(&[]);
    let mut breaches = broken.promises.iter().flat_map(|promise| &promise.breaches);
    assert!(breaches.any(|breach| breach.what == "an anomaly that nobody has settled"), "{broken:?}");

    let for_people = payments(&sale.world, &["payments", "show", &id]).output().unwrap();
    assert!(out(&for_people).contains("REFUNDED_ELSEWHERE") && out(&for_people).contains("--as noted"));
    let (code, settled) = run(&sale.world, &["settle", &id, "--as", "noted", "--yes", "--why", "a goodwill refund"]);
    assert_eq!((code, &settled["anomaly"]["state"]), (Some(0), &"SETTLED".into()), "{settled}");
    let (_, page) = run(&sale.world, &["list"]);
    assert_eq!(page["anomalies"], json!([]));
    let (_, all) = run(&sale.world, &["list", "--state", "all"]);
    assert_eq!(all["anomalies"][0]["decided"]["verdict"], "NOTED");
    sale.audit();
    sale.mesh.stop().await.unwrap();
}

/// What an earlier release has written of a refund of a part, under the kind of one of the whole.
const PART_OF_BEFORE: &str = "UPDATE anomalies SET detail = '100 EUR of the 1999 EUR that pay_1:1 captured were refunded \
     at the provider, and not by this service'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_an_earlier_release_has_noted_as_the_whole_cannot_be_booked_as_that() {
    let sale = Sale::open(LONG).await;
    let user = buyer();
    let order = sale.bought(user, &[(0, 1)], "").await;
    let id = anomaly(&sale.world, &order, "REFUND", "REFUNDED_ELSEWHERE").await;
    assert_eq!(sql(&sale.world, PART_OF_BEFORE).await, 1);
    let (_, shown) = run(&sale.world, &["show", &id]);
    assert_eq!((&shown["kind"], &shown["verdicts"]), (&"PARTLY_REFUNDED_ELSEWHERE".into(), &json!(["NOTED"])));

    let book = ["payments", "settle", &id, "--as", "refunded", "--yes", "--why", "they sent it back"];
    let refused = payments(&sale.world, &book).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
    let (code, settled) = run(&sale.world, &["settle", &id, "--as", "noted", "--yes", "--why", "a goodwill refund"]);
    assert_eq!((code, &settled["is_settled"]), (Some(0), &true.into()), "{settled}");
    assert_eq!(sale.get(user, &order).await.state(), OrderState::Fulfilled);
    sale.mesh.stop().await.unwrap();
}

#[test]
fn bad_input_is_refused_before_the_database_is_asked() {
    for (args, hint) in [
        (&["settle", "1", "--as", "captured"][..], "retry"),
        (&["settle", "1"], "--as"),
        (&["settle", "--as", "retry"], "ID"),
        (&["settle", "1", "--kind", "REFUSED", "--as", "retry"], "--kind"),
        (&["settle", "--kind", "ANOTHER_CHARGE", "--as", "retry"], "REFUSED"),
        (&["settle", "--kind", "REFUSED", "--as", "declined"], "--as retry"),
        (&["list", "--limit", "0"], "--limit"),
        (&["show", "x"], "ID"),
    ] {
        let url = ["--database-url", "mysql://nobody@127.0.0.1:9"];
        let output = stampede(&[&["-o", "json", "payments"][..], args, &url].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(json_error(&output).contains(hint), "{args:?}: {}", json_error(&output));
    }
}
