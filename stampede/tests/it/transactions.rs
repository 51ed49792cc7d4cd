//! The transactions of the services by name, each with the test in which it is broken off at each point: the sale in
//! which everything fails (`broken_steps.rs`), or one of its own. Both see in the metrics of the service that this very
//! transaction has failed. Those that no test breaks off are here too, with the reason. A transaction that is added
//! without a row here fails a test.
//!
//! So does work without a transaction (`db.run`), of which one list has what writes, and the other what reads only.

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

/// Source text that begins work without a transaction, and is followed by its name.
const RUNNERS: [&str; 1] = ["db.run("];

/// Folders whose sources open transactions.
const SOURCES: [&str; 7] = [
    "services/coupon/src",
    "services/event/src",
    "services/inventory/src",
    "services/order/src",
    "services/payment/src",
    "kit/inbox/src",
    "kit/outbox/src",
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

/// What writes without a transaction.
const WRITES: &[(&str, Shown)] = &[
    ("acknowledge_campaigns", Unbroken("a campaign that is not settled is swept again, and its claims are stored")),
    ("note_seen_events", Unbroken("it is best effort: when others could see a transition is not known then")),
    ("mark_over", Unbroken("the next round of the reconciler marks what is not marked")),
    ("strike_off_restage", Unbroken("a restage that stays pending is done again, and copies the same")),
    ("raise_arrivals_floor", Unbroken("the repair fails with it, and the next comparison finds the same loss")),
    ("begin_turn", Unbroken("a turn that is begun and not known of is free again when its lease ends")),
    ("end_turn", Unbroken("a turn that is not ended is free again when its lease ends, and reads the same rows")),
    ("confirm_reservations", Unbroken("a reservation that stays is aged in the next sweep, and confirmed again")),
    ("pass_walk_on", Unbroken("a walk whose lease is not renewed is due again, from its last checkpoint")),
    ("letters_to_replay", Unbroken("what is refused here is no message, and the next round refuses it")),
    ("letter_hindered", Unbroken("it notes why a replay is tried again, for an operator to read")),
    ("uncopied_letters", Unbroken("a claim that is not known of ends by itself, and the letter is copied then")),
    ("release_letters", Unbroken("a claim that is not released ends by itself")),
    ("letter_copied", Unbroken("a letter whose copy is not noted is copied again when its claim ends")),
    ("purge_outbox", Unbroken("what is not deleted is old in the next round too")),
];

/// What reads without a transaction: where it is broken off nothing is written.
const READS: &[&str] = &[
    "aged_reservations",
    "buyers_of_item",
    "closings",
    "committed_units",
    "count_dead_letters",
    "count_open_orders",
    "count_parked",
    "count_unanswered_orders",
    "count_unknown",
    "count_unread",
    "created_before",
    "dead_letters_due",
    "due_orders",
    "due_refunds",
    "due_walks",
    "event_cancellation",
    "event_versions",
    "events_opening",
    "find_campaign",
    "find_campaigns",
    "find_coupon",
    "find_coupons",
    "find_cursor",
    "find_decisions",
    "find_ended_orders",
    "find_event",
    "find_events",
    "find_orders",
    "find_payment",
    "find_refund",
    "find_repeats",
    "greatest_rank",
    "held_coupons",
    "items_of_event",
    "items_of_events",
    "items_on_sale",
    "last_arrival",
    "ledger_of_holds",
    "list_campaigns",
    "list_coupons",
    "list_events",
    "list_orders",
    "list_payments",
    "near_events",
    "open_events",
    "order_form",
    "order_statuses",
    "page_of_events",
    "pending_orders",
    "ranks_of_campaign",
    "settled_campaigns",
    "settled_keys",
    "unsettled_campaigns",
    "upcoming_events",
    "waiting_orders",
    "waiting_restages",
    "walk_event_orders",
    "watched_orders",
    "watched_versions",
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

/// The names that follow one of these openers in the code of a source, however its lines are broken.
fn named(source: &str, openers: &[&str]) -> BTreeSet<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(str::split_whitespace).collect();
    let opened = openers.iter().flat_map(|opener| code.split(opener).skip(1));
    let names = opened.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
    names.map(str::to_owned).collect()
}

/// Those in all sources.
fn named_anywhere(openers: &[&str]) -> BTreeSet<String> {
    SOURCES.iter().flat_map(|folder| named_below(&path(folder), openers)).collect()
}

/// Those in a folder of sources.
fn named_below(folder: &Path, openers: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(named_below(&path, openers));
        } else {
            names.extend(named(&fs::read_to_string(&path).unwrap(), openers));
        }
    }
    names
}

#[test]
fn every_transaction_has_a_row() {
    let listed: BTreeSet<String> = TRANSACTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), TRANSACTIONS.len(), "one has two rows");
    assert_eq!(listed, named_anywhere(&OPENERS));
}

#[test]
fn whatever_runs_without_a_transaction_is_known_to_write_or_to_read() {
    let writes = WRITES.iter().map(|(name, _)| *name);
    let listed: BTreeSet<String> = writes.chain(READS.iter().copied()).map(str::to_owned).collect();
    assert_eq!(listed.len(), WRITES.len() + READS.len(), "one is listed twice");
    assert_eq!(listed, named_anywhere(&RUNNERS));
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
    for (name, shown) in TRANSACTIONS.iter().chain(WRITES) {
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
    for (name, shown) in TRANSACTIONS.iter().chain(WRITES) {
        let Unbroken(why) = shown else { continue };
        assert!(!why.is_empty(), "{name}");
    }
}

#[test]
fn a_transaction_is_found_by_its_name_wherever_its_line_is_broken() {
    let source =
        "self.db.transact(\"one\", move |conn| {}); db\n    .transact_after(\n        \"two\", opening, work);";
    assert_eq!(named(source, &OPENERS), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert_eq!(named("db.transact_after(name, opening, work)", &OPENERS), BTreeSet::new());
    let source = "orders.run(\"one\", input); self\n    .db\n    .run(\n        \"two\", read)";
    assert_eq!(named(source, &RUNNERS), BTreeSet::from(["two".to_owned()]));
}
