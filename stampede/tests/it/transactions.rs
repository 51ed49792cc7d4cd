//! The transactions of the services by name, each with the test in which it fails or comes again: the sale in which
//! everything fails (`broken_steps.rs`), or one of its own. A transaction that is added without a row here fails a
//! test.

use Shown::{Apart, Sale};
use stampede_testkit::{
    Mesh,
    Service::{self, Coupon, Event, Inventory, Order, Payment},
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The test in which a transaction fails, or is repeated.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// In `broken_steps.rs`, in each of these services.
    Sale(&'static [Service]),
    /// In a test of its own, of this file and name.
    Apart(&'static str, &'static str),
}

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

const TRANSACTIONS: &[(&str, Shown)] = &[
    ("apply_messages", Sale(&[Coupon, Inventory, Order, Payment])),
    (
        "set_aside",
        Apart(
            "kit/inbox/tests/it/waits.rs",
            "a_letter_and_the_park_of_its_key_are_one_and_prove_that_the_database_is_well",
        ),
    ),
    (
        "replay_message",
        Apart("kit/inbox/tests/it/letters.rs", "a_key_that_cannot_be_replayed_now_holds_up_no_other_and_no_decision"),
    ),
    (
        "letter_not_replayed",
        Apart("kit/inbox/tests/it/letters.rs", "a_replay_that_fails_again_waits_with_what_is_behind_it"),
    ),
    ("unpark_key", Apart("kit/inbox/tests/it/letters.rs", "what_comes_right_after_a_decision_is_applied")),
    ("create_event", Sale(&[Event])),
    ("advance_events", Sale(&[Event])),
    ("cancel_event", Sale(&[Event])),
    (
        "reschedule_event",
        Apart("services/event/tests/it/commands.rs", "of_two_operators_who_saw_the_same_version_one_moves_the_event"),
    ),
    (
        "create_campaign",
        Apart("services/coupon/tests/it/reading.rs", "a_repeated_request_returns_the_campaign_created_first"),
    ),
    ("store_claims", Sale(&[Coupon])),
    (
        "store_missing_claims",
        Apart("services/coupon/tests/it/mending.rs", "replicas_that_store_the_same_claims_do_not_distrust_redis"),
    ),
    ("hold_coupons", Sale(&[Coupon])),
    ("release_coupons", Apart("services/coupon/tests/it/holding.rs", "a_coupon_is_held_for_one_order_and_comes_back")),
    (
        "release_unwritten",
        Apart(
            "services/coupon/tests/it/holding.rs",
            "a_coupon_that_somebody_has_locked_keeps_no_other_from_coming_back",
        ),
    ),
    (
        "stage_stock",
        Apart(
            "services/event/tests/it/confirming.rs",
            "without_an_answer_of_inventory_the_operator_gets_a_problem_and_repeats",
        ),
    ),
    ("commit_grants", Sale(&[Inventory])),
    (
        "release_reservations",
        Apart(
            "services/inventory/tests/it/crashed_returns.rs",
            "a_sweep_that_dies_while_it_gives_units_back_gives_them_back_once",
        ),
    ),
    (
        "release_ended_orders",
        Apart(
            "services/inventory/tests/it/ended_orders.rs",
            "an_order_whose_units_cannot_be_given_back_keeps_nobody_elses",
        ),
    ),
    ("place_orders", Sale(&[Order])),
    ("change_orders", Sale(&[Order])),
    (
        "change_locked_orders",
        Apart("services/order/tests/it/sweeps.rs", "who_waits_for_a_locked_order_keeps_no_other_call_waiting"),
    ),
    ("expire_orders", Sale(&[Order])),
    ("ask_again", Apart("services/order/tests/it/repeats.rs", "whoever_owes_an_answer_is_asked_again_until_it_comes")),
    (
        "end_event_orders",
        Apart(
            "services/order/tests/it/cancelled_event.rs",
            "what_is_unpaid_is_cancelled_and_what_is_paid_is_refunded_once_across_a_kill",
        ),
    ),
    (
        "finish_pending",
        Apart(
            "services/order/tests/it/earlier_release.rs",
            "an_order_that_was_left_pending_takes_the_units_that_it_has_not",
        ),
    ),
    (
        "claim_charges",
        Apart("services/payment/tests/it/unknown.rs", "a_process_that_dies_while_it_charges_leaves_one_charge"),
    ),
    (
        "claim_unknown",
        Apart("services/payment/tests/it/unknown.rs", "a_provider_that_is_away_is_asked_again_when_it_is_back"),
    ),
    ("settle_attempts", Sale(&[Payment])),
    ("claim_refunds", Apart("services/payment/tests/it/refunding.rs", "a_refund_waits_for_a_provider_that_is_away")),
    ("settle_refunds", Sale(&[Payment])),
    (
        "note_refunds",
        Apart(
            "services/payment/tests/it/by_hand.rs",
            "a_charge_that_cannot_be_looked_up_stops_no_list_and_is_looked_up_again",
        ),
    ),
    (
        "postpone_refunds",
        Apart(
            "services/payment/tests/it/by_hand.rs",
            "a_charge_that_cannot_be_looked_up_stops_no_list_and_is_looked_up_again",
        ),
    ),
    (
        "move_cursor",
        Apart(
            "services/payment/tests/it/by_hand.rs",
            "one_replica_at_a_time_reads_the_list_and_another_goes_on_when_that_has_died",
        ),
    ),
    (
        "republish_captures",
        Apart(
            "services/payment/tests/it/ending.rs",
            "what_was_captured_for_an_ended_order_is_published_again_until_it_is_refunded",
        ),
    ),
    (
        "put_off_ended_orders",
        Apart("services/payment/tests/it/ending.rs", "a_capture_that_cannot_be_published_again_keeps_no_other_waiting"),
    ),
    (
        "carry_out_decisions",
        Apart(
            "services/payment/tests/it/parking.rs",
            "a_charge_that_is_refused_for_good_is_sent_once_and_a_decision_asks_again",
        ),
    ),
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
fn every_transaction_is_seen_to_fail_or_to_come_again() {
    let listed: BTreeSet<String> = TRANSACTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), TRANSACTIONS.len(), "one has two rows");
    let opened: BTreeSet<String> = SOURCES.iter().flat_map(|folder| named_below(&path(folder))).collect();
    assert_eq!(listed, opened);
}

#[test]
fn every_test_of_a_transaction_is_there() {
    for (name, shown) in TRANSACTIONS {
        let Apart(file, test) = shown else { continue };
        let source = fs::read_to_string(path(file)).unwrap();
        assert!(source.contains(&format!("fn {test}(")), "{name}: {file} has no {test}");
    }
}

#[test]
fn a_transaction_is_found_by_its_name_wherever_its_line_is_broken() {
    let source =
        "self.db.transact(\"one\", move |conn| {}); db\n    .transact_after(\n        \"two\", opening, work);";
    assert_eq!(named(source), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert_eq!(named("db.transact_after(name, opening, work)"), BTreeSet::new());
}
