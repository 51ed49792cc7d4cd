//! The audit must be able to fail: each promise is broken by hand, and the audit names the breach.

use crate::{
    breaks::{BREAKS, Break, GUARDS, Id},
    message_breaks::MESSAGE_BREAKS,
    money_breaks::MONEY_BREAKS,
    sale::{Audit, LONG, Sale, audit_command},
    sold::{AT_ONCE, Sold},
};
use sqlx::AssertSqlSafe;
use stampede_lua::{
    coupon,
    stock::{Decision, InLedger, LedgerCopy, LedgerUnits, Reservation, Stock, WantedLine},
};
use stampede_proto::order::v1::CancelOrderRequest;
use stampede_testkit::{Service, as_buyer, buyer, eventually};
use stampede_vocab::{CouponId, Fingerprint, OrderId, Quantity, RequestId, Timestamp};
use std::{
    collections::HashSet,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// O_NONBLOCK of Linux: the open of a pipe does not wait for the other side.
const O_NONBLOCK: i32 = 0o4000;

/// Breaks a sale of its own in each of these ways, one after the other.
async fn are_named(breaks: &[&Break]) {
    let sold = Sold::new().await;
    sold.run(GUARDS).await;
    assert_holds(&sold).await;
    // Each row is a page of its own, so that breaches at the end of a page or between two pages are found as well.
    let in_pages = [AT_ONCE, &["--page-rows", "1"]].concat();
    for Break { by, mended_by, named } in breaks {
        sold.run(by).await;
        sold.assert_names(&sold.audited(&in_pages).await, named);
        sold.run(mended_by).await;
    }
    assert_holds(&sold).await;
    sold.assert_names(
        &sold.audited(&[AT_ONCE, &["--open-within-ms", "0"]].concat()).await,
        &[(6, "events are later than 0 ms (p99)", Id::Text(""))],
    );
}

async fn assert_holds(sold: &Sold) {
    let audit = sold.audited(AT_ONCE).await;
    assert!(audit.holds, "{audit:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_promise_broken_by_hand_is_named() {
    let all: Vec<&Break> = BREAKS.iter().chain(MONEY_BREAKS).chain(MESSAGE_BREAKS).collect();
    // An audit mostly waits for the servers, so those of two sales run side by side.
    let (some, others) = all.split_at(all.len() / 2);
    tokio::join!(are_named(some), are_named(others));
}

/// The breaches that the checks of the audit find, from their sources: `what: "..."`.
#[test]
fn each_check_has_been_seen_to_fail() {
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/src/audit/checks");
    let breaks = BREAKS.iter().chain(MONEY_BREAKS);
    let broken: HashSet<&str> = breaks.flat_map(|one| one.named).map(|(_, what, _)| *what).collect();
    let mut found = 0;
    for file in fs::read_dir(checks).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for what in text.split("what: \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(broken.contains(what), "nothing breaks this by hand: {what}");
            found += 1;
        }
    }
    assert!(found > 30, "{found} checks were found");
}

/// The sources in a folder and below it.
fn sources(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![fs::read_to_string(path).unwrap()] })
        .collect()
}

/// The breaches that the rest of the audit finds, from its sources: `audit.breach(4, "..."`, also by `format!`.
#[test]
fn each_breach_is_named_by_a_test() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = sources(&here.join("tests/it")).concat();
    let mut found = 0;
    for source in sources(&here.join("../cli/src/audit")) {
        for call in source.split("audit.breach(").skip(1) {
            let Some((arguments, rest)) = call.split_once('"') else { continue };
            // A breach whose text is made elsewhere.
            if arguments.contains(';') {
                continue;
            }
            let what = rest.split('"').next().unwrap();
            // Between them is the variable part, such as the name of a service.
            let fixed = what.split(['{', '}']).step_by(2);
            let is_named = fixed.filter(|text| !text.trim().is_empty()).all(|text| tests.contains(text));
            assert!(is_named, "no test names this: {what}");
            found += 1;
        }
    }
    assert!(found > 25, "{found} breaches were found");
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
async fn wrong_data_in_redis_are_named() {
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
        ledger: InLedger::Absent,
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

/// Void rows: the order was placed before, for the other item, and another order came as early as it did.
const VOID_ROWS: &[(Service, &str)] = &[
    (
        Service::Inventory,
        "INSERT INTO ledger SELECT l.order_id, s.item_id, l.user_id, l.event_id, 99, 1, 0, 'RELEASED', l.committed_at_us, l.committed_at_us, NULL, l.request_fingerprint, NULL, NULL FROM ledger l JOIN stock s ON s.item_id <> l.item_id WHERE l.order_id = {order}",
    ),
    (
        Service::Inventory,
        "INSERT INTO ledger SELECT {a}, item_id, {b}, event_id, arrival, units, 0, 'RELEASED', committed_at_us, committed_at_us, NULL, request_fingerprint, NULL, NULL FROM ledger WHERE order_id = {order} AND item_id = {item}",
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
async fn a_topic_that_is_missing_is_not_an_empty_one() {
    let sold = Sold::new().await;
    let error = sold.sale.failed_audit(&["--quiet-deadline-s", "0", "--kafka-topic-prefix", "nobody"]);
    assert!(error.contains("topic nobody."), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_parts_fail_the_audit() {
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
async fn acknowledged_things_that_are_missing_are_named() {
    let sold = Sold::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acknowledged.json");
    let audit_with = |orders: &[&str], coupons: &[&str]| {
        let acknowledged = serde_json::json!({"orders": orders, "coupons": coupons});
        fs::write(&file, acknowledged.to_string()).unwrap();
        sold.sale.run_audit(&["--acknowledged", file.to_str().unwrap()])
    };
    let (order, coupon) = (sold.order.order_id.as_str(), sold.order.coupon_id.as_str());
    assert!(audit_with(&[order], &[coupon]).holds);
    // More than are printed for people.
    let lost: Vec<String> = (1..=30).map(|byte| OrderId::try_from_bytes(&[byte; 16]).unwrap().to_string()).collect();
    let audit = audit_with(&lost.iter().map(String::as_str).chain([order]).collect::<Vec<_>>(), &[coupon]);
    let [breach] = audit.promises[3].breaches.as_slice() else { panic!("{audit:#?}") };
    assert_eq!((breach.what.as_str(), &breach.named), ("an acknowledged order is lost", &lost));

    let lost = CouponId::try_from_bytes(&[1; 16]).unwrap().to_string();
    let audit = audit_with(&[order], &[coupon, &lost]);
    let [breach] = audit.promises[3].breaches.as_slice() else { panic!("{audit:#?}") };
    assert_eq!((breach.what.as_str(), breach.named.as_slice()), ("an issued coupon is lost", [lost].as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn findings_while_messages_are_written_are_no_proof_and_looked_at_again_while_there_is_time() {
    let sale = Sale::open(LONG).await;
    sale.placed(buyer(), &[(0, 1)], "").await;
    let folder = tempfile::tempdir().unwrap();
    let lost = OrderId::try_from_bytes(&[1; 16]).unwrap().to_string();
    let acknowledged = serde_json::json!({"orders": [lost], "coupons": []}).to_string();
    let file = folder.path().join("acknowledged.json");
    fs::write(&file, &acknowledged).unwrap();
    let audit = sale.run_audit(&["--acknowledged", file.to_str().unwrap()]);
    assert_eq!((audit.holds, audit.still_moving), (false, Vec::new()));

    // The acknowledgements are read last, so an audit that waits for a pipe of them has read the tables.
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Fails as long as nobody reads.
    let open = || fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&pipe);
    for (deadline_s, looks, still_moving) in
        [("0", 1, &["messages that were written while the tables were read"][..]), ("60", 2, &[])]
    {
        let flags = ["--acknowledged", pipe.to_str().unwrap(), "--quiet-deadline-s", deadline_s];
        let mut command = audit_command(&sale.world, &sale.mesh, &flags);
        let running = command.stdout(Stdio::piped()).spawn().unwrap();
        for look in 1..=looks {
            let mut writer = eventually("the audit has read the tables", || async { open().ok() }).await;
            if look == 1 {
                sale.placed(buyer(), &[(0, 1)], "").await;
            }
            writer.write_all(acknowledged.as_bytes()).unwrap();
            drop(writer);
            eventually("the audit has read the pipe", || async { open().is_err().then_some(()) }).await;
        }
        let audit: Audit = serde_json::from_slice(&running.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(audit.still_moving, still_moving);
        assert_eq!((audit.holds, audit.promises[3].breaches.len()), (false, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_acknowledged_and_is_lost_is_named() {
    let sold = Sold::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acknowledged.json");
    let (order, version) = (sold.order.order_id.as_str(), sold.order.version);
    let audit_with = |state: &str, version: i64| {
        let shown = serde_json::json!({"state": state, "version": version});
        let acknowledged = serde_json::json!({"orders": [order], "coupons": [], "states": {order: shown}});
        fs::write(&file, acknowledged.to_string()).unwrap();
        sold.sale.run_audit(&["--acknowledged", file.to_str().unwrap()])
    };
    assert!(audit_with("FULFILLED", version).holds);
    assert!(audit_with("PAYING", version - 1).holds);
    for (state, version) in [("REFUNDING", version + 1), ("CANCELLED", version - 1), ("PAYING", version)] {
        let audit = audit_with(state, version);
        let [breach] = audit.promises[3].breaches.as_slice() else { panic!("{audit:#?}") };
        assert_eq!(breach.what, "an acknowledged state of an order is lost");
        assert!(breach.named[0].starts_with(order), "{audit:#?}");
    }
}
