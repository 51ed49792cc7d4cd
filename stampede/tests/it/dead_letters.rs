//! Dead letters, listed and decided on by the operator's own command: bad input, and whole chains while a mesh runs.

use crate::{
    command::{err, json_error, out, stampede},
    sale::{LONG, Sale},
    webhook::pay_late,
};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use stampede_proto::order::v1::{Order, OrderState};
use stampede_testkit::{MeshBuilder, Process, Service, World, buyer, eventually};
use std::process::{Command, Output, Stdio};

/// Time until the money of a late card comes: its order has expired by then.
const LATE_MS: u64 = 6_000;

fn in_world(world: &World, mut command: Command) -> Command {
    command
        .env("STAMPEDE_ADMIN_DATABASE_URL", world.database_url())
        .env("STAMPEDE_SCHEMA_PREFIX", world.schema_prefix())
        .env("STAMPEDE_KAFKA_TOPIC_PREFIX", world.topic_prefix())
        .env("STAMPEDE_KAFKA_BROKERS", world.brokers())
        .env("USER", "somebody");
    command
}

fn messages(world: &World, args: &[&str]) -> Command {
    in_world(world, stampede(&[&["-o", "json", "messages"][..], args].concat()))
}

/// The exit code, and the document on stdout.
fn run(world: &World, args: &[&str]) -> (Option<i32>, Value) {
    read(&messages(world, args).output().unwrap())
}

fn read(output: &Output) -> (Option<i32>, Value) {
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), document)
}

async fn sql(world: &World, service: Service, sql: &str) {
    let db = world.database(service).await.unwrap();
    let mut connection = db.acquire().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn number(world: &World, service: Service, sql: &str) -> i64 {
    let db = world.database(service).await.unwrap();
    let mut connection = db.acquire().await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut *connection).await.unwrap()
}

/// The letters of the order, in their order, once there are so many.
async fn until_letters(sale: &Sale, order: &Order, consumer: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{consumer} has set {count} messages of the order aside"), || async {
        let args = ["list", "--consumer", consumer, "--topic", "order", "--key", &order.order_id];
        let (code, page) = run(&sale.world, &args);
        assert_eq!(code, Some(0), "{page}");
        let letters = page["letters"].as_array().unwrap().clone();
        (letters.len() >= count).then_some(letters)
    })
    .await
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().unwrap()
}

/// The decisions on the letter as they are shown, the oldest first: what, by whom, and why.
fn decisions(world: &World, letter: &str) -> Vec<[String; 3]> {
    let (code, shown) = run(world, &["show", letter]);
    assert_eq!(code, Some(0), "{shown}");
    let parts = |one: &Value| ["act", "by", "why"].map(|part| one[part].as_str().unwrap().to_owned());
    shown["decisions"].as_array().unwrap().iter().map(parts).collect()
}

fn of_consumer<'l>(lag: &'l Value, consumer: &str, writer: &str) -> &'l Value {
    let ending = format!(".{writer}");
    let mut consumers = lag["consumers"].as_array().unwrap().iter();
    let found = consumers.find(|one| one["consumer"] == consumer && one["topic"].as_str().unwrap().ends_with(&ending));
    found.unwrap_or_else(|| panic!("{consumer} of {writer}: {lag}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_comes_back_in_order_and_once_though_two_operators_ask_for_it() {
    let late = MeshBuilder::default().set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", LATE_MS);
    let sale = Sale::open_on(late, LONG).await;
    let (world, user) = (&sale.world, buyer());
    sql(world, Service::Inventory, "ALTER TABLE ledger ADD CONSTRAINT no_release CHECK (state = 'COMMITTED')").await;
    let order = sale.placed(user, &[(0, 1)], "").await;
    pay_late(&sale, user, &order).await;
    sale.time_is_over(&order).await;
    // The units of the expired order cannot go back; its late money then waits for them behind that.
    let letters = until_letters(&sale, &order, "inventory", 2).await;
    let (first, second) = (id(&letters[0]), id(&letters[1]));
    let kinds = [&letters[0], &letters[1]].map(|one| (one["kind"].clone(), one["message_type"].clone()));
    let expected: [(Value, Value); 2] = [("POISON", "OrderExpired"), ("PARKED", "OrderPaidLate")]
        .map(|(kind, name)| (kind.into(), format!("stampede.message.v1.{name}").into()));
    assert_eq!(kinds, expected);
    sale.until(user, &order, OrderState::Paid).await;

    let (code, shown) = run(world, &["show", first]);
    assert_eq!((code, &shown["payload"]["decoded"]["order_id"]), (Some(0), &order.order_id.as_str().into()), "{shown}");
    let headers = shown["headers"].as_array().unwrap();
    assert!(headers.iter().any(|one| one["key"] == "ce_type" && one["text"] == letters[0]["message_type"]), "{shown}");
    assert_eq!((id(&shown["chain"][0]), id(&shown["chain"][1])), (first, second));
    assert_eq!(shown["parked"]["from_offset"], letters[0]["offset"]);
    eventually("the consumer has read all, and all but the chain has taken effect", || async {
        let (code, lag) = run(world, &["lag"]);
        assert_eq!(code, Some(0), "{lag}");
        let inventory = of_consumer(&lag, "inventory", "order");
        assert_eq!(inventory["parked_keys"], 1, "{lag}");
        assert!(inventory["dead_letters_waiting"].as_i64() >= Some(2), "{lag}");
        let sent = lag["outboxes"].as_array().unwrap().iter().all(|outbox| outbox["unsent_messages"] == 0);
        (sent && inventory["lag_messages"] == 0).then_some(())
    })
    .await;

    // Nothing changes without --yes, and a replay before the cause is fixed has no lasting effect.
    let (code, said) = run(world, &["replay", second]);
    assert_eq!((code, &said["dry_run"], id(&said["keys"][0]["letters"][0])), (Some(0), &true.into(), first), "{said}");
    assert_eq!(run(world, &["show", first]).1["decided"], Value::Null);
    let (code, early) = run(world, &["replay", first, "--yes", "--why", "too early", "--by", "eve"]);
    let outcome = &early["keys"][0]["outcome"];
    assert_eq!((code, id(&outcome["failed"][0]), &outcome["replayed"]), (Some(1), first, &0.into()), "{early}");
    let (_, shown) = run(world, &["show", first]);
    assert_eq!(
        (&shown["state"], &shown["attempts"], &shown["decided"]["by"]),
        (&"WAITING".into(), &1.into(), &"eve".into())
    );

    sql(world, Service::Inventory, "ALTER TABLE ledger DROP CONSTRAINT no_release").await;
    let replay = |by: &str| {
        let args = ["replay", "--key", &order.order_id, "--yes", "--why", "mended", "--by", by];
        messages(world, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [("ann", replay("ann")), ("bob", replay("bob"))];
    let mut both = both.map(|(by, child)| (by, read(&child.wait_with_output().unwrap())));
    both.sort_by_key(|(_, (code, _))| *code);
    let [(winner, (done, report)), (_, (late, nothing))] = &both;
    assert_eq!((*done, *late), (Some(0), Some(1)), "{report} {nothing}");
    assert!(report["keys"][0]["outcome"]["replayed"].as_i64() >= Some(2), "{report}");

    sale.until(user, &order, OrderState::Fulfilled).await;
    for letter in [first, second] {
        let (_, shown) = run(world, &["show", letter]);
        assert_eq!((&shown["state"], &shown["decided"]["by"]), (&"REPLAYED".into(), &(*winner).into()), "{shown}");
        assert_eq!((&shown["decided"]["why"], &shown["parked"]), (&"mended".into(), &Value::Null));
        // The first act on the whole key is not forgotten over the last; the slower operator has done nothing.
        assert_eq!(decisions(world, letter), [["REPLAY", "eve", "too early"], ["REPLAY", *winner, "mended"]]);
    }
    let committed = "SELECT COUNT(*) FROM ledger WHERE state = 'COMMITTED'";
    assert_eq!(number(world, Service::Inventory, committed).await, 1);
    sale.audit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discard_shows_its_consequences_first_and_releases_the_key() {
    let sale = Sale::open(LONG).await;
    let (world, user) = (&sale.world, buyer());
    sql(world, Service::Payment, "ALTER TABLE payments ADD CONSTRAINT no_payments CHECK (amount_minor < 0)").await;
    let order = sale.placed(user, &[(0, 1)], "").await;
    sale.pay(user, &order, "pm_card_ok").await.unwrap();
    sale.time_is_over(&order).await;
    sale.until(user, &order, OrderState::Expired).await;
    let letters = until_letters(&sale, &order, "payment", 2).await;
    let (first, second) = (id(&letters[0]), id(&letters[1]));

    let (code, said) = run(world, &["discard", first]);
    let outlook = &said["keys"][0]["outlook"];
    assert_eq!(
        (code, &said["dry_run"], &outlook["order"]["state"]),
        (Some(0), &true.into(), &"EXPIRED".into()),
        "{said}"
    );
    assert_eq!(
        (&outlook["order"]["order_id"], &outlook["order"]["payment"]),
        (&order.order_id.as_str().into(), &Value::Null)
    );
    assert_eq!(outlook["without"][0]["message"], "PaymentRequested");
    let for_people = in_world(world, stampede(&["messages", "discard", first])).output().unwrap();
    assert!(out(&for_people).contains(" is EXPIRED") && out(&for_people).contains("--yes --why"), "{for_people:?}");

    // One letter alone: the messages behind it go on waiting.
    let (code, one) = run(world, &["discard", first, "--yes", "--why", "paid elsewhere"]);
    let outcome = &one["keys"][0]["outcome"];
    assert_eq!((code, &outcome["discarded"], &outcome["parked"]), (Some(0), &1.into(), &true.into()), "{one}");
    assert_eq!(one["record"]["by"], "somebody");
    let (_, left) = run(world, &["list", "--state", "waiting"]);
    assert_eq!(id(&left["letters"][0]), second, "{left}");

    let (code, all) = run(world, &["discard", "--key", &order.order_id, "--yes", "--why", "paid elsewhere"]);
    let outcome = &all["keys"][0]["outcome"];
    assert_eq!((code, &outcome["discarded"], &outcome["parked"]), (Some(0), &1.into(), &false.into()), "{all}");
    let (_, left) = run(world, &["list"]);
    assert_eq!(left["letters"], Value::Array(Vec::new()));
    let (_, discarded) = run(world, &["list", "--state", "discarded"]);
    assert_eq!(discarded["letters"].as_array().unwrap().len(), 2, "{discarded}");
    sale.until_left(0, 10, 2).await;
    let audit = sale.run_audit(&[]);
    assert!(audit.left_out.iter().any(|what| what.contains("2 messages of order in payment, which an operator")));
}

/// Writes a letter of the payment service by hand, and returns its id.
async fn write_letter(world: &World, kind: &str, key: &str, offset: i64) -> String {
    let topic = Service::Order.topic(world.topic_prefix());
    let written = format!(
        "INSERT INTO dead_letters (consumer, topic, partition_no, record_offset, message_key, source, message_id, \
         message_type, headers, payload, reason, kind, set_aside_us) VALUES ('payment', '{topic}', 0, {offset}, \
         '{key}', '/stampede/order', 'm{offset}', 'stampede.message.v1.PaymentRequested', '[]', '', 'a reason', \
         '{kind}', 1)"
    );
    sql(world, Service::Payment, &written).await;
    if kind != "UNREADABLE" {
        let parked = format!("INSERT IGNORE INTO inbox_parked VALUES ('{topic}', '{key}', {offset}, 1)");
        sql(world, Service::Payment, &parked).await;
    }
    let last = number(world, Service::Payment, "SELECT MAX(id) FROM dead_letters").await;
    format!("payment-{last}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_listed_page_by_page_and_filtered() {
    let world = World::prepared().await.unwrap();
    let mut ids = Vec::new();
    for (offset, key) in [(1, "ord_a"), (2, "ord_b"), (3, "ord_a")] {
        ids.push(write_letter(&world, "POISON", key, offset).await);
    }
    let listed = |args: &[&str]| {
        let (code, page) = run(&world, &[&["list"][..], args].concat());
        assert_eq!(code, Some(0), "{page}");
        let letters: Vec<String> = page["letters"].as_array().unwrap().iter().map(|one| id(one).to_owned()).collect();
        (letters, page["next_after"].clone())
    };
    assert_eq!(listed(&["--limit", "2"]), (ids[..2].to_vec(), ids[1].as_str().into()));
    assert_eq!(listed(&["--limit", "2", "--after", &ids[1]]), (ids[2..].to_vec(), Value::Null));
    assert_eq!(listed(&["--key", "ord_a"]).0, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(listed(&["--type", "PaymentRequested", "--older-than", "1d"]).0, ids);
    for none in [["--type", "OrderExpired"], ["--consumer", "order"], ["--topic", "event"], ["--state", "replay"]] {
        assert_eq!(listed(&none).0, Vec::<String>::new(), "{none:?}");
    }
    let for_people = in_world(&world, stampede(&["messages", "list"])).output().unwrap();
    assert!(out(&for_people).contains(&ids[0]) && out(&for_people).contains("a reason"), "{for_people:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_nobody_carries_out_is_not_waited_for_without_end() {
    let world = World::prepared().await.unwrap();
    let (first, second) =
        (write_letter(&world, "POISON", "ord_a", 1).await, write_letter(&world, "PARKED", "ord_a", 2).await);
    let other = write_letter(&world, "POISON", "ord_b", 3).await;
    let record = ["--yes", "--why", "x"];
    let (code, report) = run(&world, &[&["replay", first.as_str(), "--deadline-s", "1"][..], &record].concat());
    let (decided, outcome) = (&report["keys"][0]["decided"], &report["keys"][0]["outcome"]);
    assert_eq!((code, &outcome["pending"]), (Some(1), &2.into()), "{report}");
    assert_eq!(*decided, Value::from(vec![first.as_str(), second.as_str()]));
    // A replay that has not run yet can be revoked by its id; a finished one is not decided on again.
    let (code, back) = run(&world, &[&["discard", second.as_str(), "--by", "ann"][..], &record].concat());
    let (decided, outcome) = (&back["keys"][0]["decided"], &back["keys"][0]["outcome"]);
    assert_eq!(
        (code, decided, &outcome["discarded"]),
        (Some(0), &Value::from(vec![second.as_str()]), &1.into()),
        "{back}"
    );
    assert_eq!(run(&world, &["show", &second]).1["state"], "DISCARDED");
    assert_eq!(decisions(&world, &first), [["REPLAY", "somebody", "x"]]);
    assert_eq!(decisions(&world, &second), [["REPLAY", "somebody", "x"], ["DISCARD", "ann", "x"]]);
    let for_people = out(&in_world(&world, stampede(&["messages", "show", &second])).output().unwrap());
    assert!(
        for_people.contains(" REPLAY by somebody: x\n") && for_people.contains(" DISCARD by ann: x\n"),
        "{for_people}"
    );
    let (code, again) = run(&world, &[&["discard", second.as_str()][..], &record].concat());
    assert_eq!((code, &again["keys"]), (Some(1), &Value::Array(Vec::new())), "{again}");
    let of_before =
        "UPDATE dead_letters SET decided_by = 'eve', decided_why = 'y', decided_us = 1 WHERE message_key = 'ord_b'";
    sql(&world, Service::Payment, of_before).await;
    let (code, at_once) = run(&world, &[&["replay", other.as_str(), "--no-wait"][..], &record].concat());
    assert_eq!((code, &at_once["keys"][0]["outcome"]["pending"]), (Some(0), &1.into()), "{at_once}");
    assert_eq!(run(&world, &["show", &other]).1["state"], "REPLAY");
    // The decision that the release before has written to the letter alone is kept too.
    assert_eq!(decisions(&world, &other), [["REPLAY", "eve", "y"], ["REPLAY", "somebody", "x"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_no_message_can_only_be_discarded() {
    let world = World::prepared().await.unwrap();
    let letter = write_letter(&world, "UNREADABLE", "", 1).await;
    let refused = messages(&world, &["replay", &letter, "--yes", "--why", "x"]).output().unwrap();
    assert!(json_error(&refused).contains(&format!("stampede messages discard {letter}")), "{refused:?}");
    let (code, report) = run(&world, &["discard", &letter, "--yes", "--why", "x"]);
    assert_eq!((code, &report["keys"][0]["outcome"]["discarded"]), (Some(0), &1.into()), "{report}");
    assert!(
        json_error(&messages(&world, &["show", "payment-999"]).output().unwrap())
            .contains("no dead letter payment-999")
    );
    let elsewhere = messages(&world, &["list", "--schema-prefix", "of_nobody_"]).output().unwrap();
    assert!(json_error(&elsewhere).contains("--schema-prefix"), "{elsewhere:?}");
}

#[test]
fn an_invalid_command_line_is_refused_with_its_flag_and_the_remedy() {
    let url = ["--database-url", "mysql://root@127.0.0.1:1"];
    let cases: [(&[&str], &[&str]); 12] = [
        (&["show", "17"], &["<ID>", "such as order-17"]),
        (&["list", "--consumer", "event"], &["--consumer", "payment"]),
        (&["list", "--older-than", "5"], &["--older-than", "such as 90s"]),
        (&["list", "--type", "PaymentAproved"], &["--type", "PaymentApproved"]),
        (&["list", "--topic", "orders"], &["--topic", "stampede.order"]),
        (&["list", "--key", ""], &["--key"]),
        (&["list", "--limit", "0"], &["--limit", "1..=1000"]),
        (&["replay"], &["give an ID, or --key"]),
        (&["replay", "order-1", "--key", "x"], &["exclude each other"]),
        (&["replay", "order-1", "--yes"], &["--why"]),
        (&["discard", "order-1", "--yes", "--why", " "], &["--why", "1 to 2000"]),
        (&["discard", "order-1", "--yes", "--why", "x"], &["--by"]),
    ];
    for (args, said) in cases {
        let output = stampede(&[&["messages"][..], args, &url].concat()).env_remove("USER").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        for part in said {
            assert!(err(&output).contains(part), "{args:?}: {part}: {}", err(&output));
        }
    }
}
