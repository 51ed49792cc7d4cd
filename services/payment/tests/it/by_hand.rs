//! Money that somebody gives back by hand, at the provider.

use crate::{
    sale::{Order, PRICE, Sale},
    stand_in::{Ask, StandIn, charge, charge_key, refund, refusal},
    webhooks::{SECRET, notify, sign},
};
use anyhow::Result;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use stampede_proto::payment::v1::PaymentState;
use stampede_testkit::{MeshBuilder, Process, Service, eventually};
use stampede_vocab::Timestamp;
use std::time::Duration;

/// A service that reads the provider's list of refunds all the time.
fn sweeping() -> MeshBuilder {
    MeshBuilder::default().set(Service::Payment, "STAMPEDE_PAYMENT_REFUND_SWEEP_INTERVAL_MS", 200)
}

/// A sale with such a service.
async fn open() -> Result<Sale> {
    Sale::open_with(sweeping()).await
}

/// Waits until what has been asked for so often is asked for so often more.
async fn asked_again(provider: &StandIn, (ask, key): (Ask, &str), times: usize) {
    let before = provider.asked(ask, key);
    eventually(&format!("{ask:?} is asked {times} times more"), || async {
        (provider.asked(ask, key) >= before + times).then_some(())
    })
    .await;
}

/// An order that is paid, of which so much is given back by hand.
async fn given_back(sale: &Sale, amount_minor: i64) -> Result<Order> {
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    give_back(sale, &order, amount_minor).await?;
    Ok(order)
}

/// Gives so much of what was paid back, by hand at the provider.
async fn give_back(sale: &Sale, order: &Order, amount_minor: i64) -> Result<()> {
    let payment = sale.payment(order).await.expect("a payment");
    let body = json!({"charge_id": payment.attempts[0].provider_charge_id, "amount_minor": amount_minor});
    let request = Request::post(format!("{}/v1/refunds", sale.mesh.url(Process::Sandbox)))
        .header("content-type", "application/json")
        .header("idempotency-key", format!("by-hand-{}-{amount_minor}", order.id))
        .body(Full::new(Bytes::from(body.to_string())))?;
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    Ok(())
}

/// Waits until the anomalies of refunds of all orders are these: kind and state.
async fn noted(sale: &Sale, expected: &[(&str, &str)]) {
    let of = "SELECT kind, state FROM anomalies WHERE subject = 'REFUND' ORDER BY id";
    eventually(&format!("the anomalies are {expected:?}"), || async {
        let mut conn = sale.conn().await.ok()?;
        let found: Vec<(String, String)> = sqlx::query_as(of).fetch_all(&mut *conn).await.ok()?;
        let found: Vec<_> = found.iter().map(|(kind, state)| (kind.as_str(), state.as_str())).collect();
        (found == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_refunded_by_hand_is_found_and_ends_the_refund_that_is_requested_then() -> Result<()> {
    let sale = open().await?;
    let order = given_back(&sale, PRICE).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    // Nobody has said yet whether the goods come back.
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Captured);

    sale.publish(&order, order.refund(PRICE)).await?;
    sale.reaches(&order, PaymentState::Refunded).await;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "SETTLED")]).await;
    assert_eq!(sale.published_names(&order, 2).await, ["PaymentApproved", "PaymentRefunded"]);
    assert_eq!(sale.number("SELECT COUNT(*) FROM provider_cursors").await?, 1);
    sale.mesh.stop().await
}

/// Decides on the open anomalies of this kind, as `stampede payments settle` does.
async fn decide(sale: &Sale, kind: &str, verdict: &str) -> Result<()> {
    let decide = "UPDATE anomalies SET state = 'DECIDED', verdict = ?, decided_by = 'ann', decided_why = 'asked them', \
                  decided_us = 1 WHERE state = 'OPEN' AND kind = ?";
    let decided = sqlx::query(decide).bind(verdict).bind(kind).execute(&mut *sale.conn().await?).await?;
    assert_eq!(decided.rows_affected(), 1);
    Ok(())
}

#[tokio::test]
async fn what_was_refunded_by_hand_is_booked_once_somebody_says_that_the_goods_come_back() -> Result<()> {
    let sale = open().await?;
    // In two parts, of which the first was found alone.
    let order = given_back(&sale, 1).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN")]).await;
    give_back(&sale, &order, PRICE - 1).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN"), ("REFUNDED_ELSEWHERE", "OPEN")]).await;

    decide(&sale, "REFUNDED_ELSEWHERE", "REFUNDED").await?;
    let payment = sale.reaches(&order, PaymentState::Refunded).await;
    assert_eq!(payment.refunded, payment.captured);
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "SETTLED"), ("REFUNDED_ELSEWHERE", "SETTLED")]).await;
    assert_eq!(sale.published_names(&order, 2).await, ["PaymentApproved", "PaymentRefunded"]);
    let done = "SELECT COUNT(*) FROM refunds WHERE state = 'REFUNDED' AND provider_charge_id IS NOT NULL";
    assert_eq!(sale.number(done).await?, 1);

    // Whoever asks for it afterwards is told that it is done.
    sale.publish(&order, order.refund(PRICE)).await?;
    assert_eq!(sale.published_names(&order, 3).await[2..], ["PaymentRefunded"]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_was_refunded_by_hand_and_is_only_noted_stays_paid() -> Result<()> {
    let sale = open().await?;
    let order = given_back(&sale, PRICE).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    decide(&sale, "REFUNDED_ELSEWHERE", "NOTED").await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "SETTLED")]).await;
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Captured);
    assert_eq!(sale.published_names(&order, 1).await, ["PaymentApproved"]);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_decision_that_cannot_be_written_blocks_no_other() -> Result<()> {
    let sale = open().await?;
    given_back(&sale, 1).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN")]).await;
    given_back(&sale, PRICE).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN"), ("REFUNDED_ELSEWHERE", "OPEN")]).await;
    let mut conn = sale.conn().await?;
    let refuse = "ALTER TABLE anomalies ADD CONSTRAINT ck_test \
                  CHECK (state <> 'SETTLED' OR kind <> 'PARTLY_REFUNDED_ELSEWHERE')";
    sqlx::raw_sql(refuse).execute(&mut *conn).await?;
    // Both at once, so that one round finds them together.
    let decide = "UPDATE anomalies SET state = 'DECIDED', verdict = 'NOTED', decided_by = 'ann', \
                  decided_why = 'asked them', decided_us = 1 WHERE state = 'OPEN'";
    assert_eq!(sqlx::query(decide).execute(&mut *conn).await?.rows_affected(), 2);
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "DECIDED"), ("REFUNDED_ELSEWHERE", "SETTLED")]).await;

    sqlx::raw_sql("ALTER TABLE anomalies DROP CONSTRAINT ck_test").execute(&mut *conn).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "SETTLED"), ("REFUNDED_ELSEWHERE", "SETTLED")]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_of_what_was_given_back_in_part_is_parked() -> Result<()> {
    let sale = open().await?;
    let order = given_back(&sale, 1).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN")]).await;
    sale.publish(&order, order.refund(PRICE)).await?;
    noted(&sale, &[("PARTLY_REFUNDED_ELSEWHERE", "OPEN"), ("REFUSED", "OPEN")]).await;
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Refunding);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_notice_tells_of_a_refund_by_hand_before_the_list_is_read() -> Result<()> {
    let once = MeshBuilder::default()
        .set(Service::Payment, "STAMPEDE_PAYMENT_REFUND_SWEEP_INTERVAL_MS", 86_400_000)
        .set(Service::Payment, "STAMPEDE_WEBHOOK_SECRET", SECRET);
    let sale = Sale::open_with(once).await?;
    let order = given_back(&sale, PRICE).await?;
    let payment = sale.payment(&order).await.expect("a payment");
    let charge_id = &payment.attempts[0].provider_charge_id;
    for notice in [
        json!({"type": "refund.succeeded", "key": "by-hand", "charge_id": charge_id}),
        json!({"type": "charge.refunded", "charge_id": charge_id}),
    ] {
        let payload = notice.to_string();
        notify(&sale, &payload, &sign(&payload)).await?;
        noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_of_ours_is_no_anomaly() -> Result<()> {
    let sale = open().await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.publish(&order, order.refund(PRICE)).await?;
    sale.reaches(&order, PaymentState::Refunded).await;
    let read = "SELECT COUNT(*) FROM provider_cursors WHERE after_id = 're_0000000001'";
    eventually("the list is read", || async { sale.number(read).await.ok().filter(|read| *read == 1) }).await;
    noted(&sale, &[]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn one_replica_at_a_time_reads_the_list_and_another_goes_on_when_that_has_died() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(sweeping().replicas(Service::Payment, 2)).await?;
    asked_again(&provider, (Ask::Refunds, ""), 1).await;
    // As if another process had the turn, and for long.
    let until = Timestamp::now().plus(Duration::from_secs(3_600)).micros();
    let turn = "UPDATE provider_turns SET next_us = ?";
    sqlx::query(turn).bind(until).execute(&mut *sale.conn().await?).await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    // What was being read then has been read, and there was time for many rounds.
    let key = charge_key(&order);
    asked_again(&provider, (Ask::ChargeByKey, &key), 1).await;
    let before = provider.asked(Ask::Refunds, "");
    asked_again(&provider, (Ask::ChargeByKey, &key), 3).await;
    assert_eq!(provider.asked(Ask::Refunds, ""), before);
    assert_eq!(sale.number("SELECT next_us FROM provider_turns").await?, until);

    // That process has died, and its turn is over.
    sqlx::query(turn).bind(1_i64).execute(&mut *sale.conn().await?).await?;
    asked_again(&provider, (Ask::Refunds, ""), 2).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_by_hand_that_was_pending_when_the_list_was_read_is_found_when_it_is_done() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(sweeping()).await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    provider.has_captured(&order, "ch_1");
    sale.reaches(&order, PaymentState::Captured).await;
    let shown = |refunded_minor: i64| {
        let mut shown = charge("captured", PRICE);
        (shown["key"], shown["refunded_minor"]) = (json!(charge_key(&order)), json!(refunded_minor));
        shown
    };
    provider.says_of(Ask::ChargeById, "ch_1", 200, shown(0));
    let mut pending = refund("pending", PRICE);
    pending["key"] = json!("by-hand");
    provider.says(Ask::Refunds, 200, json!({"refunds": [pending], "has_more": false}));
    let read = "SELECT COUNT(*) FROM provider_cursors WHERE after_id = 're_1'";
    eventually("the page is done", || async { sale.number(read).await.ok().filter(|read| *read == 1) }).await;
    // What comes behind it says nothing of that charge.
    provider.says(Ask::Refunds, 200, json!({"refunds": [], "has_more": false}));
    asked_again(&provider, (Ask::Refunds, ""), 2).await;
    // The provider shows the charge, of which nothing is given back yet.
    sqlx::query("UPDATE unread_refunds SET due_us = 1").execute(&mut *sale.conn().await?).await?;
    asked_again(&provider, (Ask::ChargeById, "ch_1"), 1).await;
    noted(&sale, &[]).await;

    provider.says_of(Ask::ChargeById, "ch_1", 200, shown(PRICE));
    sqlx::query("UPDATE unread_refunds SET due_us = 1").execute(&mut *sale.conn().await?).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    let left = "SELECT COUNT(*) FROM unread_refunds";
    eventually("none is left", || async { sale.number(left).await.ok().filter(|left| *left == 0) }).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_replica_that_stands_still_for_longer_than_its_turn_sets_back_no_look_up_of_another() -> Result<()> {
    let provider = StandIn::start().await?;
    // One that will be unread, and one that will be read.
    provider.says_of(Ask::ChargeById, "ch_1", 500, refusal("broken"));
    provider.says_of(Ask::ChargeById, "ch_2", 200, charge("captured", PRICE));
    let answer = provider.holds(Ask::ChargeById, "ch_1");
    let sale = provider.open(sweeping()).await?;
    let due = "INSERT INTO unread_refunds (charge_id, due_us, tries, is_pending, is_unread) \
               VALUES ('ch_1', 1, 0, 0, 1), ('ch_2', 1, 0, 0, 1)";
    sqlx::query(due).execute(&mut *sale.conn().await?).await?;
    eventually("they are looked up", || async {
        (provider.asked(Ask::ChargeById, "ch_1") == 1 && provider.asked(Ask::ChargeById, "ch_2") == 1).then_some(())
    })
    .await;

    // Its turn is over, and another process has had one: it has looked them up, and put them off for long.
    let mut conn = sale.conn().await?;
    let later = Timestamp::now().plus(Duration::from_secs(3_600)).micros();
    sqlx::query("UPDATE provider_turns SET next_us = ?").bind(later).execute(&mut *conn).await?;
    sqlx::query("UPDATE unread_refunds SET due_us = ?, tries = 7").bind(later).execute(&mut *conn).await?;
    drop(answer);
    sqlx::query("UPDATE provider_turns SET next_us = 1").execute(&mut *conn).await?;
    // It begins a round when the one before is done.
    asked_again(&provider, (Ask::Refunds, ""), 1).await;
    let left = sqlx::query_as("SELECT charge_id, due_us, tries FROM unread_refunds ORDER BY charge_id");
    let left: Vec<(String, i64, i32)> = left.fetch_all(&mut *conn).await?;
    assert_eq!(left, [("ch_1".to_owned(), later, 7), ("ch_2".to_owned(), later, 7)]);
    sale.mesh.stop().await
}

/// Writes this state into the rows of all payments.
async fn write_state(sale: &Sale, state: &str) -> Result<()> {
    sqlx::query("UPDATE payments SET state = ?").bind(state).execute(&mut *sale.conn().await?).await?;
    Ok(())
}

#[tokio::test]
async fn a_refund_by_hand_of_a_payment_that_cannot_be_read_is_noted_once_it_can_be() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(sweeping().set(Service::Payment, "STAMPEDE_WEBHOOK_SECRET", SECRET)).await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    provider.has_captured(&order, "ch_1");
    sale.reaches(&order, PaymentState::Captured).await;
    // What a newer version may have written.
    write_state(&sale, "PARTLY").await?;
    let mut given_back = charge("captured", PRICE);
    (given_back["key"], given_back["refunded_minor"]) = (json!(charge_key(&order)), json!(PRICE));
    provider.says_of(Ask::ChargeById, "ch_1", 200, given_back);
    let payload = json!({"type": "charge.refunded", "charge_id": "ch_1"}).to_string();
    let refused = notify(&sale, &payload, &sign(&payload)).await.expect_err("its payment cannot be read");
    assert_eq!(refused.code(), tonic::Code::Unavailable);

    let mut by_hand = refund("refunded", PRICE);
    by_hand["key"] = json!("by-hand");
    provider.says(Ask::Refunds, 200, json!({"refunds": [by_hand], "has_more": false}));
    let read = "SELECT COUNT(*) FROM provider_cursors WHERE after_id = 're_1'";
    eventually("the page is done", || async { sale.number(read).await.ok().filter(|read| *read == 1) }).await;
    // What comes behind it says nothing of that charge.
    provider.says(Ask::Refunds, 200, json!({"refunds": [], "has_more": false}));
    let tried = "SELECT COUNT(*) FROM unread_refunds WHERE charge_id = 'ch_1' AND is_unread AND tries > 1";
    eventually("it is looked up again", || async { sale.number(tried).await.ok().filter(|tried| *tried == 1) }).await;
    noted(&sale, &[]).await;

    write_state(&sale, "CAPTURED").await?;
    sqlx::query("UPDATE unread_refunds SET due_us = 1").execute(&mut *sale.conn().await?).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    let left = "SELECT COUNT(*) FROM unread_refunds";
    eventually("none is left", || async { sale.number(left).await.ok().filter(|left| *left == 0) }).await;
    notify(&sale, &payload, &sign(&payload)).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_charge_that_cannot_be_looked_up_stops_no_list_and_is_looked_up_again() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(sweeping()).await?;
    let (broken, order) = (Order::new(), Order::new());
    for (order, charge_id) in [(&broken, "ch_1"), (&order, "ch_2")] {
        sale.pay(order, 1, "pm_card_ok").await?;
        provider.has_captured(order, charge_id);
        sale.reaches(order, PaymentState::Captured).await;
    }
    let given_back = |order: &Order, charge_id: &str| {
        let mut charge = charge("captured", PRICE);
        (charge["id"], charge["key"]) = (json!(charge_id), json!(charge_key(order)));
        charge["refunded_minor"] = json!(PRICE);
        charge
    };
    provider.says_of(Ask::ChargeById, "ch_2", 200, given_back(&order, "ch_2"));
    provider.says_of(Ask::ChargeById, "ch_1", 500, refusal("broken"));
    // Of the one that fails, and of the other.
    let (mut first, mut second) = (refund("refunded", PRICE), refund("refunded", PRICE));
    (first["key"], second["key"]) = (json!("by-hand-1"), json!("by-hand-2"));
    (second["id"], second["charge_id"]) = (json!("re_2"), json!("ch_2"));
    provider.says(Ask::Refunds, 200, json!({"refunds": [first, second], "has_more": false}));
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN")]).await;
    let read = "SELECT COUNT(*) FROM provider_cursors WHERE after_id = 're_2'";
    eventually("the page is done", || async { sale.number(read).await.ok().filter(|read| *read == 1) }).await;
    // What comes behind it says nothing of that charge.
    provider.says(Ask::Refunds, 200, json!({"refunds": [], "has_more": false}));
    let tried = "SELECT COUNT(*) FROM unread_refunds WHERE charge_id = 'ch_1' AND tries > 1";
    eventually("it is looked up again", || async { sale.number(tried).await.ok().filter(|tried| *tried == 1) }).await;
    eventually("it is counted", || async {
        let metrics = sale.mesh.metrics(Service::Payment).await.ok()?;
        (metrics.values("stampede_payments_unread_refunds", &[]) == [1.0]).then_some(())
    })
    .await;

    provider.says_of(Ask::ChargeById, "ch_1", 200, given_back(&broken, "ch_1"));
    sqlx::query("UPDATE unread_refunds SET due_us = 1").execute(&mut *sale.conn().await?).await?;
    noted(&sale, &[("REFUNDED_ELSEWHERE", "OPEN"), ("REFUNDED_ELSEWHERE", "OPEN")]).await;
    let left = "SELECT COUNT(*) FROM unread_refunds";
    eventually("none is left", || async { sale.number(left).await.ok().filter(|left| *left == 0) }).await;
    sale.mesh.stop().await
}
