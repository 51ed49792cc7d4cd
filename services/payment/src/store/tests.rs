//! Claims that compete for the same rows, and rows that cannot be read, on a real server.

use crate::{
    domain::{Anomaly, AttemptKey, Doubt, Payment, Refund, Subject},
    store::{
        Claim, KeyRow, ReadMode, anomalies,
        attempts::{self, Claimable},
        payments, refunds, turns,
        unread_refunds::{self, Unread},
    },
};
use anyhow::{Context, Result};
use sqlx::{Connection, MySqlConnection};
use stampede_db::Statements;
use stampede_testkit::{Service, World};
use stampede_vocab::{Money, OrderId, PaymentId, Timestamp, UserId};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const LEASE: Duration = Duration::from_secs(1);

fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap())
}

/// Returns a claim with this token.
fn claim(claimer: u128, now: Timestamp) -> Claim {
    Claim { token: Uuid::from_u128(claimer), now, until: now.plus(LEASE) }
}

/// Inserts a payment with a queued attempt.
async fn queue(conn: &mut MySqlConnection, order: u128) -> Result<PaymentId> {
    let order = OrderId::from_uuid(Uuid::from_u128(order));
    let mut payment = Payment::open(order, UserId::from_uuid(Uuid::from_u128(1)), eur(500), NOW);
    payment.request_charge(1, eur(500), "pm_card_ok".to_owned(), None, NOW)?;
    let mut writes = Statements::new();
    payments::push_insert(&mut writes, &[&payment]);
    attempts::push_save(&mut writes, &[(payment.id, &payment.attempts[0])]);
    writes.run(conn).await?;
    Ok(payment.id)
}

/// Inserts a refund of an attempt.
async fn refund(conn: &mut MySqlConnection, of: AttemptKey) -> Result<()> {
    let mut writes = Statements::new();
    refunds::push_insert(&mut writes, &[Refund::request(of, Some("ch_1".to_owned()), eur(500), NOW)]);
    writes.run(conn).await?;
    Ok(())
}

fn key_row(payment: PaymentId) -> KeyRow {
    KeyRow { payment_id: payment.uuid(), attempt: 1 }
}

/// Returns the number of these attempts that a claim takes after a read that has locked nothing.
async fn taken(conn: &mut MySqlConnection, of: &[PaymentId], expected: Claimable, claim: Claim) -> Result<usize> {
    let keys: Vec<_> = of.iter().copied().map(key_row).collect();
    Ok(attempts::take(conn, &keys, expected, claim).await?.into_iter().filter(Result::is_ok).count())
}

#[tokio::test]
async fn an_attempt_is_in_one_claim_whatever_was_read_before() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let (mut one, mut other) = (db.acquire().await?, db.acquire().await?);
    let ids = [queue(&mut one, 1).await?, queue(&mut one, 2).await?];

    assert_eq!(taken(&mut one, &ids[..1], Claimable::Requested, claim(1, NOW)).await?, 1);
    assert_eq!(taken(&mut other, &ids, Claimable::Requested, claim(2, NOW)).await?, 1, "only the one that is left");
    assert_eq!(taken(&mut one, &ids, Claimable::Requested, claim(3, NOW)).await?, 0);

    assert_eq!(taken(&mut one, &ids, Claimable::Due, claim(4, NOW)).await?, 0, "they are leased");
    let later = NOW.plus(LEASE);
    assert_eq!(taken(&mut one, &ids, Claimable::Due, claim(5, later)).await?, 2);
    assert_eq!(taken(&mut other, &ids, Claimable::Due, claim(6, later)).await?, 0);
    Ok(())
}

#[tokio::test]
async fn of_two_claims_at_a_time_one_takes_all() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let (mut one, mut other) = (db.acquire().await?, db.acquire().await?);
    let ids = [queue(&mut one, 1).await?, queue(&mut one, 2).await?];
    let mut first = one.begin().await?;
    assert_eq!(taken(&mut first, &ids, Claimable::Requested, claim(1, NOW)).await?, 2);
    let mut second = Box::pin(taken(&mut other, &ids, Claimable::Requested, claim(2, NOW)));
    let early = timeout(Duration::from_millis(200), second.as_mut()).await;
    assert!(early.is_err(), "nobody knows yet whether the first claim is committed: {early:?}");
    first.commit().await?;
    assert_eq!(second.await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_refund_is_in_one_claim_whatever_was_read_before() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let payment_id = queue(&mut conn, 1).await?;
    let of = AttemptKey { payment_id, attempt: 1 };
    refund(&mut conn, of).await?;
    let later = NOW.plus(LEASE);
    for (claimer, now, count) in [(1, NOW, 1), (2, NOW, 0), (3, later, 1), (4, later, 0)] {
        let taken = refunds::take(&mut conn, &[key_row(payment_id)], claim(claimer, now)).await?;
        assert_eq!(taken.len(), count, "claim {claimer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_look_finds_what_is_due_from_its_beginning_on() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let payment_id = queue(&mut conn, 1).await?;
    let of = AttemptKey { payment_id, attempt: 1 };
    refund(&mut conn, of).await?;
    let (due, later) = (NOW.plus(LEASE), NOW.plus(LEASE * 2));
    assert_eq!(taken(&mut conn, &[payment_id], Claimable::Requested, claim(1, NOW)).await?, 1);
    for (claimer, from, count) in [(2, later, 0), (3, due, 1)] {
        let unknown = attempts::claim_unknown(&mut conn, (from, 9), claim(claimer, later)).await?;
        assert_eq!(unknown.charges.len(), count, "attempts from {from:?}");
    }
    for (claimer, from, count) in [(4, due, 0), (5, NOW, 1)] {
        let refunds = refunds::claim_due(&mut conn, (from, 9), claim(claimer, later)).await?;
        assert_eq!(refunds.len(), count, "refunds from {from:?}");
    }
    Ok(())
}

/// Returns how many index entries a claim of refunds that are due from then on has met. It locks each of them, also
/// those of rows that have changed since an old snapshot.
async fn met(conn: &mut MySqlConnection, from: Timestamp) -> Result<u64> {
    let shown = "SELECT trx_rows_locked FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = CONNECTION_ID()";
    let mut claiming = conn.begin().await?;
    let claimed = refunds::claim_due(&mut claiming, (from, 9), claim(1, NOW.plus(LEASE * 2))).await?;
    assert!(claimed.is_empty(), "all are refunded");
    let mut met = None;
    for _ in 0..50 {
        // The server shows what it has seen a tenth of a second ago, or longer if somebody else asks meanwhile.
        sleep(Duration::from_millis(200)).await;
        met = sqlx::query_scalar(shown).fetch_optional(&mut *claiming).await?;
        if met.is_some() {
            break;
        }
    }
    claiming.rollback().await?;
    met.context("the server does not show the transaction")
}

#[tokio::test]
async fn a_look_from_the_last_one_on_meets_nothing_that_an_old_snapshot_keeps() -> Result<()> {
    /// Refunds that are done while the snapshot is open.
    const DONE: u64 = 2_000;
    let db = World::new()?.schema(Service::Payment).await?;
    let (mut conn, mut reader) = (db.acquire().await?, db.acquire().await?);
    let of = |n| AttemptKey { payment_id: PaymentId::from_uuid(Uuid::from_u128(n)), attempt: 1 };
    let request = |n| Refund::request(of(n), Some("ch_1".to_owned()), eur(500), NOW);
    let requested: Vec<Refund> = (1..=u128::from(DONE)).map(request).collect();
    let mut writes = Statements::new();
    refunds::push_insert(&mut writes, &requested);
    writes.run(&mut conn).await?;

    // With this isolation a claim keeps every lock that it has taken, so that they can be counted.
    for each in [&mut conn, &mut reader] {
        sqlx::raw_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut **each).await?;
    }
    sqlx::raw_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT").execute(&mut *reader).await?;
    sqlx::raw_sql("UPDATE refunds SET state = 'REFUNDED', due_us = NULL").execute(&mut *conn).await?;
    sqlx::raw_sql("ANALYZE TABLE refunds").execute(&mut *conn).await?;
    let (all, later) = (met(&mut conn, Timestamp::from_micros(0)).await?, met(&mut conn, NOW.plus(LEASE)).await?);
    assert!(all >= DONE, "the snapshot keeps none of them: {all}");
    assert!(later < 100, "{later} of {all}");
    sqlx::raw_sql("COMMIT").execute(&mut *reader).await?;
    Ok(())
}

#[tokio::test]
async fn a_claim_that_another_one_has_forestalled_knows_that_there_may_be_more() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let (mut one, mut other) = (db.acquire().await?, db.acquire().await?);
    let ids = [queue(&mut one, 1).await?, queue(&mut one, 2).await?];
    assert_eq!(taken(&mut one, &ids, Claimable::Requested, claim(1, NOW)).await?, 2);
    let later = NOW.plus(LEASE);
    let mut first = one.begin().await?;
    let claimed = attempts::claim_unknown(&mut first, (NOW, 1), claim(2, later)).await?;
    assert_eq!((claimed.charges.len(), claimed.may_be_more), (1, true));
    let claimed = attempts::claim_unknown(&mut other, (NOW, 1), claim(3, later)).await?;
    assert_eq!((claimed.charges.len(), claimed.may_be_more), (0, true), "the first has taken it");
    first.commit().await?;
    let claimed = attempts::claim_unknown(&mut other, (NOW, 9), claim(4, later)).await?;
    assert_eq!((claimed.charges.len(), claimed.may_be_more), (1, false));
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_its_neighbours_are_read() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let good = queue(&mut conn, 1).await?;
    for (order, change, is_newer) in [
        (2, "UPDATE payments SET state = 'PARTLY' WHERE id = ?", true),
        (3, "UPDATE payments SET state = 'CAPTURED' WHERE id = ?", false),
        (4, "UPDATE attempts SET state = 'AUTHORISED' WHERE payment_id = ?", true),
        (5, "UPDATE attempts SET due_us = NULL WHERE payment_id = ?", false),
    ] {
        let odd = queue(&mut conn, order).await?;
        sqlx::query(change).bind(odd.uuid()).execute(&mut *conn).await?;
        for found in payments::load(&mut conn, &[good, odd], ReadMode::Plain).await? {
            match found {
                Ok(payment) => assert_eq!(payment.id, good, "{change}"),
                Err(unreadable) => {
                    assert_eq!(unreadable.id, odd, "{change}");
                    assert_eq!(!unreadable.error.is_reproducible(), is_newer, "{change}: {}", unreadable.error);
                }
            }
        }
    }
    let listed = payments::list(&mut conn, None, None, 10).await?;
    assert_eq!((listed.len(), listed.iter().filter(|found| found.is_ok()).count()), (5, 1));
    Ok(())
}

#[tokio::test]
async fn a_decision_that_the_provider_was_faster_than_is_not_kept_as_carried_out() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let key = AttemptKey { payment_id: queue(&mut conn, 1).await?, attempt: 1 };
    anomalies::park(&mut conn, &[Anomaly::ChargeInDoubt { key, doubt: Doubt::NoAnswer }], NOW).await?;
    sqlx::query("UPDATE anomalies SET state = 'DECIDED', verdict = 'DECLINED', decided_by = 'ann'")
        .execute(&mut *conn)
        .await?;
    anomalies::close(&mut conn, Subject::Refund, &[key], NOW).await?;
    assert_eq!(anomalies::decided(&mut conn, 9).await?.len(), 1, "it is about something else");

    anomalies::close(&mut conn, Subject::Charge, &[key], NOW).await?;
    let stored: (String, Option<String>, Option<String>) =
        sqlx::query_as("SELECT state, verdict, decided_by FROM anomalies").fetch_one(&mut *conn).await?;
    assert_eq!(stored, ("SETTLED".to_owned(), None, Some("ann".to_owned())));
    Ok(())
}

#[tokio::test]
async fn an_anomaly_is_new_once() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let key = AttemptKey { payment_id: queue(&mut conn, 1).await?, attempt: 1 };
    let doubts = [Doubt::Failed, Doubt::UnknownState];
    let [failed, other] = doubts.map(|doubt| Anomaly::RefundTakenBack { key, doubt });
    let [twice, both] = [[failed.clone(), failed.clone()], [failed, other]];
    assert_eq!(anomalies::note(&mut conn, &twice, NOW).await?, twice[..1]);
    assert_eq!(anomalies::note(&mut conn, &both, NOW).await?, both[1..]);
    assert_eq!(anomalies::count_open(&mut conn).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_charge_that_is_not_shown_is_counted_until_it_is_whatever_is_pending() -> Result<()> {
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let charge =
        |is_pending, is_unread| Unread { charge_id: "ch_1".to_owned(), due_at: NOW, tries: 0, is_pending, is_unread };
    unread_refunds::insert(&mut conn, &[charge(true, false)]).await?;
    assert_eq!(unread_refunds::count_unread(&mut conn).await?, 0, "it is shown");
    for found in [charge(true, true), charge(true, false)] {
        unread_refunds::insert(&mut conn, &[found]).await?;
        assert_eq!(unread_refunds::count_unread(&mut conn).await?, 1);
    }
    assert_eq!(unread_refunds::due(&mut conn, NOW, 9).await?, [charge(true, true)]);
    unread_refunds::postpone(&mut conn, &[charge(true, false)]).await?;
    assert_eq!(unread_refunds::count_unread(&mut conn).await?, 0, "it is shown");
    Ok(())
}

#[tokio::test]
async fn a_turn_is_one_callers_until_it_ends_and_one_that_is_over_changes_nothing() -> Result<()> {
    const LIST: &str = "refunds";
    let db = World::new()?.schema(Service::Payment).await?;
    let mut conn = db.acquire().await?;
    let (first, later) = (NOW.plus(LEASE), NOW.plus(LEASE * 2));
    assert!(turns::begin(&mut conn, LIST, NOW, first).await?, "nobody had one before");
    assert!(!turns::begin(&mut conn, LIST, NOW, later).await?);
    assert!(turns::is_held(&mut conn, LIST, first).await?);
    assert!(!turns::is_held(&mut conn, LIST, later).await?);

    // Its process has died, or is slow.
    assert!(turns::begin(&mut conn, LIST, first, later).await?);
    assert!(!turns::is_held(&mut conn, LIST, first).await?);
    turns::end(&mut conn, LIST, first, NOW).await?;
    assert!(turns::is_held(&mut conn, LIST, later).await?, "the end of the one before is passed over");
    turns::end(&mut conn, LIST, later, NOW).await?;
    assert!(turns::begin(&mut conn, LIST, NOW, first).await?);
    Ok(())
}
