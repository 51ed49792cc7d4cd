//! Charges and refunds of which the provider says what cannot be, or nothing for too long: parked, and settled by hand.

use crate::{
    sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale},
    stand_in::{Ask, StandIn, charge, charge_key, refund, refund_key, refusal},
    webhooks::{SECRET, captured, notify, sign},
};
use anyhow::Result;
use serde_json::json;
use sqlx::AssertSqlSafe;
use stampede_proto::payment::v1::{AttemptState, PaymentState};
use stampede_testkit::{MeshBuilder, Process, Service, eventually};

fn settings() -> MeshBuilder {
    MeshBuilder::default().set(Service::Payment, "STAMPEDE_WEBHOOK_SECRET", SECRET)
}

/// The subject, kind and state of each anomaly of an order, in the order in which they were found.
async fn anomalies(sale: &Sale, order: &Order) -> Result<Vec<(String, String, String)>> {
    let of = "SELECT a.subject, a.kind, a.state FROM anomalies a JOIN payments p ON p.id = a.payment_id \
              WHERE p.order_id = ? ORDER BY a.id";
    Ok(sqlx::query_as(of).bind(order.id.uuid()).fetch_all(&mut *sale.conn().await?).await?)
}

/// Waits until an order has an open anomaly of this kind, and no other.
async fn is_parked(sale: &Sale, order: &Order, subject: &str, kind: &str) {
    let expected = [(subject.to_owned(), kind.to_owned(), "OPEN".to_owned())];
    eventually(&format!("{order:?} has a {subject} that is {kind}"), || async {
        anomalies(sale, order).await.ok().filter(|found| *found == expected)
    })
    .await;
}

/// Decides on all open anomalies of an order, as `stampede payments settle` does, and waits until that is carried out.
async fn settle(sale: &Sale, order: &Order, verdict: &str) -> Result<()> {
    let decide = "UPDATE anomalies SET state = 'DECIDED', verdict = ?, decided_by = 'ann', decided_why = 'looked', \
                  decided_us = 1 WHERE state = 'OPEN' AND payment_id = (SELECT id FROM payments WHERE order_id = ?)";
    let decided = sqlx::query(decide).bind(verdict).bind(order.id.uuid()).execute(&mut *sale.conn().await?).await?;
    assert_eq!(decided.rows_affected(), 1);
    eventually("the decision is carried out", || async {
        let found = anomalies(sale, order).await.ok()?;
        found.iter().all(|(_, _, state)| state == "SETTLED").then_some(())
    })
    .await;
    Ok(())
}

/// Waits until another order, which is pending, has been looked up twice: whoever else is looked up has been by then.
async fn look_ups_go_on(sale: &Sale, provider: &StandIn) -> Result<()> {
    let other = Order::new();
    provider.says_of(Ask::Charge, &charge_key(&other), 202, charge("pending", PRICE));
    provider.says_of(Ask::ChargeByKey, &charge_key(&other), 200, charge("pending", PRICE));
    sale.pay(&other, 1, "pm_card_ok").await?;
    eventually("a pending charge is looked up again and again", || async {
        (provider.asked(Ask::ChargeByKey, &charge_key(&other)) >= 2).then_some(())
    })
    .await;
    Ok(())
}

/// An order that is paid, of which the provider says so.
async fn paid(sale: &Sale, provider: &StandIn) -> Result<Order> {
    let order = Order::new();
    provider.says_of(Ask::Charge, &charge_key(&order), 200, charge("captured", PRICE));
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    Ok(order)
}

#[tokio::test]
async fn a_capture_over_another_amount_or_currency_is_parked_and_asked_for_no_more() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let in_dollars = json!({"id": "ch_1", "status": "captured", "amount_minor": PRICE, "currency": "USD"});
    // By hand, before it was known here that it was captured.
    let mut given_back = charge("captured", PRICE);
    given_back["refunded_minor"] = json!(PRICE);
    for answer in [charge("captured", PRICE - 1), in_dollars, given_back] {
        let order = Order::new();
        provider.says_of(Ask::Charge, &charge_key(&order), 200, answer);
        sale.pay(&order, 1, "pm_card_ok").await?;
        let payment = sale.attempt_reaches(&order, 1, AttemptState::Parked).await;
        assert_eq!(payment.state(), PaymentState::Open);
        is_parked(&sale, &order, "CHARGE", "WRONG_AMOUNT").await;
        look_ups_go_on(&sale, &provider).await?;
        assert_eq!(provider.asked(Ask::ChargeByKey, &charge_key(&order)), 0);
        assert_eq!(sale.published(&order).await?, []);

        settle(&sale, &order, "DECLINED").await?;
        sale.attempt_reaches(&order, 1, AttemptState::Declined).await;
        assert_eq!(sale.published_names(&order, 1).await, ["PaymentDeclined"]);
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_currency_in_small_letters_is_the_same() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = Order::new();
    let body = json!({"id": "ch_1", "status": "captured", "amount_minor": PRICE, "currency": "eur"});
    provider.says(Ask::Charge, 200, body);
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_charge_that_is_refused_for_good_is_sent_once_and_a_decision_asks_again() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    for (status, code) in [(400, "malformed_request"), (409, "idempotency_key_reused"), (422, "invalid_value")] {
        let order = Order::new();
        let key = charge_key(&order);
        provider.says_of(Ask::Charge, &key, status, refusal(code));
        provider.says_of(Ask::ChargeByKey, &key, 404, refusal("charge_not_found"));
        sale.pay(&order, 1, "pm_card_ok").await?;
        sale.attempt_reaches(&order, 1, AttemptState::Parked).await;
        is_parked(&sale, &order, "CHARGE", "REFUSED").await;
        look_ups_go_on(&sale, &provider).await?;
        assert_eq!((provider.asked(Ask::Charge, &key), provider.asked(Ask::ChargeByKey, &key)), (1, 0), "{code}");

        provider.says_of(Ask::Charge, &key, 200, charge("captured", PRICE));
        settle(&sale, &order, "RETRY").await?;
        sale.reaches(&order, PaymentState::Captured).await;
        assert_eq!(provider.asked(Ask::ChargeByKey, &key), 1, "looked up before it was sent again");
        assert_eq!(sale.published_names(&order, 1).await, ["PaymentApproved"]);
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_out() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    for (status, code) in [(401, "bad_api_key"), (409, "idempotency_key_in_use"), (429, "slow_down"), (500, "oops")] {
        let order = Order::new();
        let key = charge_key(&order);
        provider.says_of(Ask::Charge, &key, status, refusal(code));
        provider.says_of(Ask::ChargeByKey, &key, 404, refusal("charge_not_found"));
        sale.pay(&order, 1, "pm_card_ok").await?;
        eventually("it is sent again", || async { (provider.asked(Ask::Charge, &key) >= 2).then_some(()) }).await;
        provider.says_of(Ask::Charge, &key, 200, charge("captured", PRICE));
        sale.reaches(&order, PaymentState::Captured).await;
        assert_eq!(anomalies(&sale, &order).await?, [], "{code}");
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_charge_is_not_sent_again_once_its_key_may_have_expired() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = Order::new();
    let key = charge_key(&order);
    provider.says_of(Ask::Charge, &key, 500, refusal("oops"));
    provider.says_of(Ask::ChargeByKey, &key, 404, refusal("charge_not_found"));
    sale.pay(&order, 1, "pm_card_ok").await?;
    eventually("it is sent again", || async { (provider.asked(Ask::Charge, &key) >= 2).then_some(()) }).await;
    // The provider keeps a key for a day.
    age(&sale, "attempts", 2).await;
    due_until(&sale, "attempts", async || has_anomaly(&sale, &order).await).await;
    sale.attempt_reaches(&order, 1, AttemptState::Parked).await;
    is_parked(&sale, &order, "CHARGE", "KEY_EXPIRED").await;

    let sent = provider.asked(Ask::Charge, &key);
    // Also not when an operator has it asked for again: there is nothing under the key.
    let decide = "UPDATE anomalies SET state = 'DECIDED', verdict = 'RETRY' WHERE state = 'OPEN'";
    sqlx::query(decide).execute(&mut *sale.conn().await?).await?;
    eventually("it is parked again", || async {
        let found = anomalies(&sale, &order).await.ok()?;
        let states: Vec<_> = found.iter().map(|(_, kind, state)| (kind.as_str(), state.as_str())).collect();
        (states == [("KEY_EXPIRED", "SETTLED"), ("KEY_EXPIRED", "OPEN")]).then_some(())
    })
    .await;
    assert_eq!(provider.asked(Ask::Charge, &key), sent);

    // The provider finds it after all, and says so.
    provider.has_captured(&order, "ch_late");
    let payload = captured(&order, "ch_late", PRICE);
    notify(&sale, &payload, &sign(&payload)).await?;
    sale.reaches(&order, PaymentState::Captured).await;
    assert!(anomalies(&sale, &order).await?.iter().all(|(_, _, state)| state == "SETTLED"));
    sale.mesh.stop().await
}

#[tokio::test]
async fn what_is_old_is_asked_for_again_and_again_before_it_is_parked() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = Order::new();
    let key = charge_key(&order);
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    // As if nobody had worked on it for two days, and the provider were away just now.
    provider.says_of(Ask::ChargeByKey, &key, 500, refusal("oops"));
    let age = "UPDATE attempts SET created_us = created_us - 172800000000";
    sqlx::query(age).execute(&mut *sale.conn().await?).await?;
    let asked = provider.asked(Ask::ChargeByKey, &key);
    eventually("it is looked up", || async { (provider.asked(Ask::ChargeByKey, &key) >= asked + 3).then_some(()) })
        .await;
    assert_eq!(anomalies(&sale, &order).await?, []);

    // Again where a look-up that was under way has counted on.
    let last = "UPDATE attempts SET checks = 9, due_us = 1 WHERE state = 'UNKNOWN'";
    eventually("it is looked up for the last time", || async {
        // It may meet the process' own claim in a deadlock, and changes nothing then.
        sqlx::query(last).execute(&mut *sale.conn().await.ok()?).await.ok()?;
        has_anomaly(&sale, &order).await.then_some(())
    })
    .await;
    is_parked(&sale, &order, "CHARGE", "NO_ANSWER").await;
    assert_eq!(provider.asked(Ask::Charge, &key), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_charge_that_a_restored_database_has_queued_for_long_is_not_sent_a_second_time() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = paid(&sale, &provider).await?;
    let key = charge_key(&order);
    // The provider has forgotten the key since.
    provider.says_of(Ask::ChargeByKey, &key, 404, refusal("charge_not_found"));
    for restore in [
        "UPDATE payments SET state = 'OPEN', captured_minor = 0, captured_attempt = NULL",
        "UPDATE attempts SET state = 'REQUESTED', provider_charge_id = NULL, due_us = 1, \
         created_us = created_us - 172800000000",
    ] {
        sqlx::query(restore).execute(&mut *sale.conn().await?).await?;
    }
    is_parked(&sale, &order, "CHARGE", "KEY_EXPIRED").await;
    assert_eq!(provider.asked(Ask::Charge, &key), 1);
    sale.mesh.stop().await
}

/// The present in microseconds, in SQL. What is due for long is only found by a look at all, every few seconds.
const PRESENT: &str = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";

/// Makes what is open look as if it had been requested so many days earlier, and due.
async fn age(sale: &Sale, table: &'static str, days: i64) {
    let earlier = days * 86_400_000_000;
    let sql = format!(
        "UPDATE {table} SET created_us = created_us - {earlier}, due_us = {PRESENT} \
         WHERE state IN ('UNKNOWN', 'REQUESTED')"
    );
    // It may meet the process' own claim in a deadlock, and changes nothing then.
    eventually("what is open is older", || async {
        sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut *sale.conn().await.ok()?).await.ok()
    })
    .await;
}

/// Makes what is open due again and again until this is so.
async fn due_until(sale: &Sale, table: &'static str, is_so: impl AsyncFn() -> bool) {
    eventually("what is looked up comes to that", || async {
        age(sale, table, 0).await;
        is_so().await.then_some(())
    })
    .await;
}

async fn has_anomaly(sale: &Sale, order: &Order) -> bool {
    anomalies(sale, order).await.is_ok_and(|found| !found.is_empty())
}

async fn is_in(sale: &Sale, order: &Order, state: PaymentState) -> bool {
    sale.payment(order).await.is_some_and(|payment| payment.state() == state)
}

#[tokio::test]
async fn a_charge_that_stays_pending_is_looked_up_for_two_weeks_before_it_is_parked() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    for ends in [true, false] {
        let order = Order::new();
        let key = charge_key(&order);
        sale.pay(&order, 1, "pm_card_ok").await?;
        sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
        age(&sale, "attempts", 2).await;
        let asked = provider.asked(Ask::ChargeByKey, &key);
        due_until(&sale, "attempts", async || provider.asked(Ask::ChargeByKey, &key) >= asked + 3).await;
        assert_eq!(anomalies(&sale, &order).await?, []);
        assert_eq!(provider.asked(Ask::Charge, &key), 1);
        if ends {
            provider.has_captured(&order, "ch_1");
            due_until(&sale, "attempts", async || is_in(&sale, &order, PaymentState::Captured).await).await;
        } else {
            age(&sale, "attempts", 13).await;
            due_until(&sale, "attempts", async || has_anomaly(&sale, &order).await).await;
            is_parked(&sale, &order, "CHARGE", "NO_ANSWER").await;
        }
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_that_stays_pending_is_looked_up_for_two_weeks_before_it_is_parked() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    for ends in [true, false] {
        let order = paid(&sale, &provider).await?;
        let key = refund_key(&order);
        provider.says(Ask::Refund, 200, refund("pending", PRICE));
        provider.says(Ask::RefundByKey, 200, refund("pending", PRICE));
        sale.publish(&order, order.refund(PRICE)).await?;
        eventually("it is looked up", || async { (provider.asked(Ask::RefundByKey, &key) >= 1).then_some(()) }).await;
        age(&sale, "refunds", 2).await;
        let asked = provider.asked(Ask::RefundByKey, &key);
        due_until(&sale, "refunds", async || provider.asked(Ask::RefundByKey, &key) >= asked + 3).await;
        assert_eq!(anomalies(&sale, &order).await?, []);
        assert_eq!(provider.asked(Ask::Refund, &key), 1);
        if ends {
            provider.says(Ask::RefundByKey, 200, refund("refunded", PRICE));
            due_until(&sale, "refunds", async || is_in(&sale, &order, PaymentState::Refunded).await).await;
        } else {
            age(&sale, "refunds", 13).await;
            due_until(&sale, "refunds", async || has_anomaly(&sale, &order).await).await;
            is_parked(&sale, &order, "REFUND", "NO_ANSWER").await;
        }
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_notice_is_a_hint_and_what_the_provider_answers_is_believed() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_ok").await?;
    sale.attempt_reaches(&order, 1, AttemptState::Unknown).await;
    // Signed, and not so.
    let payload = captured(&order, "ch_1", PRICE);
    notify(&sale, &payload, &sign(&payload)).await?;
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!((payment.state(), payment.attempts[0].state()), (PaymentState::Open, AttemptState::Unknown));
    assert_eq!(sale.published(&order).await?, []);

    // The provider cannot be asked: it has to send the notice again.
    provider.says(Ask::ChargeByKey, 500, refusal("oops"));
    let refused = notify(&sale, &payload, &sign(&payload)).await.expect_err("nobody knows");
    assert_eq!(refused.code(), tonic::Code::Unavailable);

    provider.has_captured(&order, "ch_1");
    notify(&sale, &payload, &sign(&payload)).await?;
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!(payment.state(), PaymentState::Captured);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_second_charge_under_one_key_is_not_passed_over() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = paid(&sale, &provider).await?;
    provider.has_captured(&order, "ch_2");
    let payload = captured(&order, "ch_2", PRICE);
    for _ in 0..2 {
        notify(&sale, &payload, &sign(&payload)).await?;
    }
    is_parked(&sale, &order, "CHARGE", "ANOTHER_CHARGE").await;
    settle(&sale, &order, "NOTED").await?;
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Captured);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_second_charge_that_its_key_does_not_lead_to_is_found_by_its_notice() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = paid(&sale, &provider).await?;
    provider.has_captured(&order, "ch_1");
    for (id, key) in [("ch_2", "of another shop"), ("ch_3", charge_key(&order).as_str())] {
        assert_eq!(anomalies(&sale, &order).await?, []);
        let mut other = charge("captured", PRICE);
        other["id"] = json!(id);
        other["key"] = json!(key);
        provider.says_of(Ask::ChargeById, id, 200, other);
        let payload = captured(&order, id, PRICE);
        notify(&sale, &payload, &sign(&payload)).await?;
        assert_eq!(provider.asked(Ask::ChargeById, id), 1);
    }
    is_parked(&sale, &order, "CHARGE", "ANOTHER_CHARGE").await;
    // The id of this one can stand in no path: it is nobody's fault for ever.
    let payload = captured(&order, "ch/4", PRICE);
    notify(&sale, &payload, &sign(&payload)).await?;
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_that_is_pending_is_looked_up_until_it_is_done() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = paid(&sale, &provider).await?;
    // A repeat would have the first answer again.
    provider.says(Ask::Refund, 200, refund("pending", PRICE));
    provider.says(Ask::RefundByKey, 200, refund("pending", PRICE));
    sale.publish(&order, order.refund(PRICE)).await?;
    let key = refund_key(&order);
    eventually("it is looked up", || async { (provider.asked(Ask::RefundByKey, &key) >= 2).then_some(()) }).await;
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Refunding);
    provider.says(Ask::RefundByKey, 200, refund("refunded", PRICE));
    sale.reaches(&order, PaymentState::Refunded).await;
    assert_eq!(provider.asked(Ask::Refund, &key), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_that_fails_after_it_was_done_is_told_to_an_operator() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    let order = paid(&sale, &provider).await?;
    provider.says(Ask::Refund, 200, refund("refunded", PRICE));
    provider.says(Ask::RefundByKey, 200, refund("refunded", PRICE));
    sale.publish(&order, order.refund(PRICE)).await?;
    sale.reaches(&order, PaymentState::Refunded).await;
    let failed = json!({"type": "refund.failed", "key": refund_key(&order), "charge_id": "ch_1"}).to_string();
    // A notice alone is not believed.
    notify(&sale, &failed, &sign(&failed)).await?;
    assert_eq!(anomalies(&sale, &order).await?, []);

    provider.says(Ask::RefundByKey, 200, refund("failed", PRICE));
    for _ in 0..2 {
        notify(&sale, &failed, &sign(&failed)).await?;
    }
    is_parked(&sale, &order, "REFUND", "REFUND_TAKEN_BACK").await;
    // The order has ended.
    assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Refunded);
    settle(&sale, &order, "NOTED").await?;
    notify(&sale, &failed, &sign(&failed)).await?;
    let noted = [("REFUND".to_owned(), "REFUND_TAKEN_BACK".to_owned(), "SETTLED".to_owned())];
    assert_eq!(anomalies(&sale, &order).await?, noted);
    assert_eq!(provider.asked(Ask::Refund, &refund_key(&order)), 1);
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_of_a_part_or_one_that_failed_is_parked_until_somebody_settles_it() -> Result<()> {
    let provider = StandIn::start().await?;
    let sale = provider.open(settings()).await?;
    for (answer, kind) in [(refund("refunded", 1), "WRONG_AMOUNT"), (refund("failed", PRICE), "FAILED")] {
        let order = paid(&sale, &provider).await?;
        provider.says(Ask::Refund, 200, answer.clone());
        provider.says(Ask::RefundByKey, 200, answer);
        sale.publish(&order, order.refund(PRICE)).await?;
        is_parked(&sale, &order, "REFUND", kind).await;
        look_ups_go_on(&sale, &provider).await?;
        assert_eq!(provider.asked(Ask::Refund, &refund_key(&order)), 1);
        let payment = sale.payment(&order).await.expect("a payment");
        assert_eq!(payment.state(), PaymentState::Refunding);

        // What a notice says of it changes nothing.
        let whole = json!({"type": "refund.succeeded", "key": refund_key(&order), "charge_id": "ch_1",
            "amount_minor": PRICE, "currency": "EUR", "status": "refunded", "refund_id": "re_1"});
        notify(&sale, &whole.to_string(), &sign(&whole.to_string())).await?;
        assert_eq!(sale.payment(&order).await.expect("a payment").state(), PaymentState::Refunding);

        settle(&sale, &order, "REFUNDED").await?;
        sale.reaches(&order, PaymentState::Refunded).await;
        assert_eq!(sale.published_names(&order, 2).await, ["PaymentApproved", "PaymentRefunded"]);
    }
    sale.mesh.stop().await
}

#[tokio::test]
async fn a_refund_that_fails_at_the_provider_after_it_was_pending_is_parked() -> Result<()> {
    let settings = settings().set(Service::Payment, PROVIDER_TIMEOUT, 10_000);
    let sale = Sale::open_with(settings.set(Process::Sandbox, "STAMPEDE_SANDBOX_LATE_MS", 300)).await?;
    let order = Order::new();
    sale.pay(&order, 1, "pm_card_refund_failed").await?;
    sale.reaches(&order, PaymentState::Captured).await;
    sale.publish(&order, order.refund(PRICE)).await?;
    is_parked(&sale, &order, "REFUND", "FAILED").await;
    let payment = sale.payment(&order).await.expect("a payment");
    assert_eq!(payment.state(), PaymentState::Refunding, "{payment:?}");
    assert_eq!(sale.published_names(&order, 1).await, ["PaymentApproved"]);
    sale.mesh.stop().await
}
