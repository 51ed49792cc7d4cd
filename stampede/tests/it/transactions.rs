//! The transactions of the services by name, each with the test in which it is broken off at each point: the sale in
//! which everything fails (`broken_steps.rs`), or one of its own. Both see in the metrics of the service that this very
//! transaction has failed. Those that no test breaks off are here too, with the reason. A transaction that is added
//! without a row here fails a test.

use Shown::{Apart, Sale, Unbroken};
use stampede_testkit::{
    Mesh,
    Service::{self, Coupon, Event, Inventory, Order, Payment},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where a transaction is seen to fail.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// In `broken_steps.rs`, in each of these services.
    Sale(&'static [Service]),
    /// In a test of this file and name, which waits for that with [`BROKEN`].
    Apart(&'static str, &'static str),
    /// Nowhere, and why that will do.
    Unbroken(&'static str),
}

/// The call of `stampede_testkit` by which a test sees a transaction fail: its arguments have the name.
const BROKEN: &str = "until_broken(";

/// Source text that begins a transaction and is followed by its name.
const OPENERS: [&str; 7] = [
    "transact(",
    "transact_with(",
    "transact_after(",
    "orders.run(",
    "run_each(",
    "run_each_unlocked(",
    "run_unlocked(",
];

/// Folders whose sources open transactions.
const SOURCES: [&str; 6] = [
    "services/coupon/src",
    "services/event/src",
    "services/inventory/src",
    "services/order/src",
    "services/payment/src",
    "kit/inbox/src",
];

/// The tests that break off more than one.
const LETTERS: Shown =
    Apart("services/payment/tests/it/broken.rs", "a_dead_letter_is_written_and_decided_on_once_whatever_fails");
const CLAIMS: Shown =
    Apart("services/payment/tests/it/broken.rs", "what_is_claimed_is_done_once_wherever_the_claim_fails");
const COUPONS: Shown =
    Apart("services/coupon/tests/it/broken.rs", "a_campaign_is_created_once_and_a_coupon_released_once_whatever_fails");

const TRANSACTIONS: &[(&str, Shown)] = &[
    ("apply_messages", Sale(&[Coupon, Inventory, Order, Payment])),
    ("set_aside", LETTERS),
    ("replay_message", LETTERS),
    ("letter_not_replayed", LETTERS),
    ("unpark_key", LETTERS),
    ("create_event", Sale(&[Event])),
    ("advance_events", Sale(&[Event])),
    ("cancel_event", Sale(&[Event])),
    ("reschedule_event", Unbroken("whoever repeats it moves the times, or finds them moved")),
    ("create_campaign", COUPONS),
    ("store_claims", Sale(&[Coupon])),
    (
        "store_missing_claims",
        Unbroken("the sweep finds what is older than --unfinished-claim-age-ms (2 s) and not stored, again and again"),
    ),
    ("hold_coupons", Sale(&[Coupon])),
    ("release_coupons", COUPONS),
    (
        "release_unwritten",
        Apart("services/coupon/tests/it/broken.rs", "a_sweep_that_fails_at_any_point_gives_a_coupon_back_once"),
    ),
    ("stage_stock", Unbroken("event and the operator repeat it, and it writes the same rows")),
    ("commit_grants", Sale(&[Inventory])),
    (
        "release_reservations",
        Apart(
            "services/inventory/tests/it/crashed_returns.rs",
            "a_sweep_that_fails_at_any_point_gives_units_back_once",
        ),
    ),
    ("release_ended_orders", Unbroken("an order whose units are not given back is found by the next sweep")),
    ("place_orders", Sale(&[Order])),
    ("change_orders", Sale(&[Order])),
    ("change_locked_orders", Unbroken("the work of change_orders, for orders that somebody had locked")),
    ("expire_orders", Sale(&[Order])),
    ("ask_again", Unbroken("an order that still waits is found by the next sweep")),
    ("end_event_orders", Unbroken("its process is killed instead, in cancelled_event.rs of order")),
    ("finish_pending", Unbroken("an order that an earlier release left pending is found by the next sweep")),
    ("claim_charges", CLAIMS),
    ("claim_unknown", CLAIMS),
    ("settle_attempts", Sale(&[Payment])),
    ("claim_refunds", CLAIMS),
    ("settle_refunds", Sale(&[Payment])),
    (
        "note_refunds",
        Unbroken("the cursor stays, so its page is read again; a look-up stays due; a notice is repeated"),
    ),
    ("postpone_refunds", Unbroken("a look-up that is not put off is due, and made again")),
    ("move_cursor", Unbroken("the page behind the cursor is read again, and its refunds are known by then")),
    ("republish_captures", Unbroken("an ended order whose capture is not published again stays due")),
    ("put_off_ended_orders", Unbroken("an ended order that is not put off is due, and tried again")),
    ("carry_out_decisions", Unbroken("a decision that is not carried out stays DECIDED, and is found again")),
];

/// Transactions that should have failed in the sale, and did not in one of the services.
pub async fn without_failure(mesh: &Mesh) -> Vec<String> {
    let mut without = Vec::new();
    for service in Service::ALL {
        let metrics = mesh.metrics(service).await.unwrap();
        for (name, shown) in TRANSACTIONS {
            let Sale(services) = shown else { continue };
            let labels = [format!("transaction=\"{name}\""), "ok=\"false\"".to_owned()];
            let failed =
                metrics.values("stampede_transaction_duration_seconds_count", &labels.each_ref().map(String::as_str));
            if services.contains(&service) && failed.iter().all(|count| *count < 1.0) {
                without.push(format!("{name} of {service}"));
            }
        }
    }
    without
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// The names of transactions in a source.
fn named(source: &str) -> BTreeSet<String> {
    let opened = OPENERS.iter().flat_map(|opener| source.split(opener).skip(1));
    let names = opened.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names.map(str::to_owned).collect()
}

/// Those in a folder of sources.
fn named_below(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(named_below(&path));
        } else {
            names.extend(named(&fs::read_to_string(&path).unwrap()));
        }
    }
    names
}

#[test]
fn every_transaction_has_a_row() {
    let listed: BTreeSet<String> = TRANSACTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), TRANSACTIONS.len(), "one has two rows");
    let opened: BTreeSet<String> = SOURCES.iter().flat_map(|folder| named_below(&path(folder))).collect();
    assert_eq!(listed, opened);
}

/// The body of a test.
fn body<'s>(source: &'s str, test: &str) -> Option<&'s str> {
    source.split_once(&format!("fn {test}("))?.1.split("\n}\n").next()
}

/// Whether a test sees a transaction fail.
fn sees_broken(body: &str, transaction: &str) -> bool {
    let named = format!("\"{transaction}\"");
    body.split(BROKEN).skip(1).any(|call| call.split(')').next().is_some_and(|arguments| arguments.contains(&named)))
}

#[test]
fn every_test_of_a_transaction_sees_it_fail() {
    for (name, shown) in TRANSACTIONS {
        let Apart(file, test) = shown else { continue };
        let source = fs::read_to_string(path(file)).unwrap();
        let body = body(&source, test).unwrap_or_else(|| panic!("{name}: {file} has no {test}"));
        assert!(sees_broken(body, name), "{name}: {test} does not wait with `{BROKEN}` until it has failed");
    }
}

#[test]
fn a_transaction_is_broken_by_the_test_that_names_it_in_its_wait() {
    let source = "fn one() {\n    mesh.until_broken(Service::Order, \"a\", &a)\n    \"b\";\n}\n\nfn two() {\n}\n";
    let one = body(source, "one").unwrap();
    assert!(sees_broken(one, "a") && !sees_broken(one, "b"));
    assert_eq!((body(source, "two").map(|two| sees_broken(two, "a")), body(source, "three")), (Some(false), None));
}

#[test]
fn whatever_is_not_broken_has_a_reason() {
    for (name, shown) in TRANSACTIONS {
        let Unbroken(why) = shown else { continue };
        assert!(!why.is_empty(), "{name}");
    }
}

#[test]
fn a_transaction_is_found_by_its_name_wherever_its_line_is_broken() {
    let source =
        "self.db.transact(\"one\", move |conn| {}); db\n    .transact_after(\n        \"two\", opening, work);";
    assert_eq!(named(source), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert_eq!(named("db.transact_after(name, opening, work)"), BTreeSet::new());
}
