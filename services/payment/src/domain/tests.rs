//! Every answer of the provider against every state, and every request of the order service.

use crate::domain::{
    Anomaly, Asked, AttemptKey, AttemptState, ChargeOrder, Doubt, Fact, Outcome, OutgoingMessage, Payment,
    PaymentState, Refund, RefundKey, RefundOutcome, RefundSettled, RefundState, Refusal, Settled, Verdict,
    pause::{pause, rare_pause},
};
use stampede_vocab::{Money, OrderId, PaymentId, Timestamp, UserId};
use std::time::Duration;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const LATER: Timestamp = Timestamp::from_micros(2_000_000);
const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

fn eur(minor: i64) -> Money {
    Money::new(minor, "EUR".parse().unwrap())
}

fn requested() -> Payment {
    let mut payment =
        Payment::open(OrderId::from_uuid(Uuid::from_u128(1)), UserId::from_uuid(Uuid::from_u128(2)), eur(500), NOW);
    payment.request_charge(1, eur(500), "pm_card_ok".to_owned(), None, NOW).unwrap();
    payment
}

fn with_state(state: AttemptState) -> Payment {
    let mut payment = requested();
    payment.attempts[0].state = state;
    payment
}

fn captured() -> Payment {
    let mut payment = requested();
    payment.settle(1, capture(500), NOW).unwrap();
    payment
}

fn capture(minor: i64) -> Outcome {
    Outcome::Captured { charge_id: Some("ch_1".to_owned()), amount: eur(minor) }
}

fn decline() -> Outcome {
    Outcome::Declined { code: "card_declined".to_owned() }
}

fn open_states() -> [AttemptState; 3] {
    [
        AttemptState::Requested,
        AttemptState::Charging { lease_until: LATER },
        AttemptState::Unknown { checks: 3, next_check: LATER },
    ]
}

fn approved() -> AttemptState {
    AttemptState::Approved { charge_id: Some("ch_1".to_owned()) }
}

fn declined() -> AttemptState {
    AttemptState::Declined { code: "card_declined".to_owned() }
}

#[test]
fn a_capture_ends_every_open_attempt_and_is_published_once() {
    for state in open_states() {
        let mut payment = with_state(state);
        let Settled::Ended(message) = payment.settle(1, capture(500), LATER).unwrap() else { panic!("no message") };
        assert_eq!(message.fact, Fact::Approved { attempt: 1, captured: eur(500) });
        assert_eq!(message.version, payment.version);
        assert_eq!(payment.state, PaymentState::Captured { attempt: 1 });
        assert_eq!((payment.captured(), payment.refunded()), (eur(500), eur(0)));
        let before = payment.clone();
        assert_eq!(payment.settle(1, capture(500), LATER), Ok(Settled::KnownBefore));
        assert_eq!(payment, before);
    }
}

#[test]
fn a_decline_ends_every_open_attempt_and_leaves_the_payment_open() {
    for state in open_states() {
        let mut payment = with_state(state);
        let Settled::Ended(message) = payment.settle(1, decline(), LATER).unwrap() else { panic!("no message") };
        assert_eq!(message.fact, Fact::Declined { attempt: 1, code: "card_declined".to_owned() });
        assert_eq!((payment.state, payment.captured()), (PaymentState::Open, eur(0)));
        assert_eq!(payment.settle(1, decline(), LATER), Ok(Settled::KnownBefore));
    }
}

#[test]
fn what_was_not_sent_is_queued_again_unless_somebody_else_may_have_sent_it() {
    let [_, charging, unknown] = open_states();
    let mut held_back = with_state(charging);
    assert_eq!(held_back.settle(1, Outcome::NotSent, LATER), Ok(Settled::StillOpen));
    assert_eq!(held_back.attempts[0].state, AttemptState::Requested);
    assert!(held_back.stop(LATER).is_some(), "its order can end without it");
    let mut sent = with_state(unknown);
    assert_eq!(sent.settle(1, Outcome::NotSent, LATER), Ok(Settled::StillOpen));
    assert!(matches!(sent.attempts[0].state, AttemptState::Unknown { checks: 4, .. }));
    for state in [AttemptState::Requested, approved(), declined(), AttemptState::Parked] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.settle(1, Outcome::NotSent, LATER), Ok(Settled::KnownBefore));
        assert_eq!(payment, before);
    }
}

#[test]
fn without_an_answer_the_next_look_up_is_scheduled_and_nothing_is_published() {
    for (state, checks) in open_states().into_iter().zip([1, 1, 4]) {
        let mut payment = with_state(state);
        let version = payment.version;
        assert_eq!(payment.settle(1, Outcome::Unresolved, NOW), Ok(Settled::StillOpen));
        let next_check = NOW.plus(pause(payment.id, checks));
        assert_eq!(payment.attempts[0].state, AttemptState::Unknown { checks, next_check });
        assert_eq!(payment.version, version);
    }
}

#[test]
fn what_is_pending_for_long_is_looked_up_rarely_and_reopens_nothing() {
    let now = LATER.plus(Duration::from_secs(86_400));
    let mut payment = with_state(AttemptState::Unknown { checks: 3_000, next_check: NOW });
    assert_eq!(payment.settle(1, Outcome::LongPending, now), Ok(Settled::StillOpen));
    let next = now.plus(rare_pause(payment.id, now.since(NOW)));
    assert!(next.since(now) >= HALF_AN_HOUR);
    assert_eq!(payment.attempts[0].state, AttemptState::Unknown { checks: 1, next_check: next });
    for state in [approved(), declined(), AttemptState::Parked] {
        let mut ended = with_state(state);
        assert_eq!(ended.settle(1, Outcome::LongPending, now), Ok(Settled::KnownBefore));
    }
    let mut refund = new_refund(&mut captured());
    refund.state = RefundState::Requested { checks: 3_000, due: NOW };
    assert_eq!(refund.settle(RefundOutcome::LongPending, now), RefundSettled::StillOpen);
    assert!(matches!(refund.state, RefundState::Requested { checks: 1, due } if due.since(now) >= HALF_AN_HOUR));
}

#[test]
fn a_late_time_out_does_not_reopen_what_has_ended() {
    for state in [approved(), declined()] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.settle(1, Outcome::Unresolved, LATER), Ok(Settled::KnownBefore));
        assert_eq!(payment, before);
    }
}

#[test]
fn what_cannot_be_is_named_and_changes_nothing() {
    let key = AttemptKey { payment_id: requested().id, attempt: 1 };
    let no_such = AttemptKey { attempt: 2, ..key };
    let wrong = Anomaly::WrongAmount { key, asked: eur(500), captured: eur(499) };
    let second = Outcome::Captured { charge_id: Some("ch_2".to_owned()), amount: eur(500) };
    let another = Anomaly::AnotherCharge { key, known: "ch_1".to_owned(), reported: "ch_2".to_owned() };
    let cases = [
        (requested(), 2, capture(500), Anomaly::NoSuchAttempt(no_such)),
        (captured(), 1, capture(499), wrong),
        (captured(), 1, second, another),
        (captured(), 1, decline(), Anomaly::DeclinedAfterCapture(key)),
    ];
    for (mut payment, number, outcome, anomaly) in cases {
        let before = payment.clone();
        assert_eq!(payment.settle(number, outcome, LATER), Err(anomaly));
        assert_eq!(payment, before);
    }
}

#[test]
fn what_does_not_fit_parks_an_open_attempt_until_the_provider_or_a_person_ends_it() {
    let key = AttemptKey { payment_id: requested().id, attempt: 1 };
    let doubts = [
        (capture(499), Anomaly::WrongAmount { key, asked: eur(500), captured: eur(499) }),
        (Outcome::InDoubt(Doubt::KeyExpired), Anomaly::ChargeInDoubt { key, doubt: Doubt::KeyExpired }),
    ];
    for state in open_states() {
        for (outcome, anomaly) in doubts.clone() {
            let mut parked = with_state(state.clone());
            let version = parked.version;
            assert_eq!(parked.settle(1, outcome.clone(), LATER), Ok(Settled::Parked(anomaly)));
            assert_eq!((&parked.attempts[0].state, parked.state), (&AttemptState::Parked, PaymentState::Open));
            assert_eq!(parked.version, version, "there is nothing to publish");
            let before = parked.clone();
            for nothing_new in [outcome, Outcome::Unresolved] {
                assert_eq!(parked.settle(1, nothing_new, LATER), Ok(Settled::KnownBefore));
                assert_eq!(parked, before);
            }
            let again = parked.request_charge(2, eur(500), "pm".to_owned(), None, LATER);
            assert!(matches!(again, Err(Refusal::AttemptUnderWay { .. })), "it may have been charged: {again:?}");

            assert!(matches!(parked.clone().settle(1, capture(500), LATER), Ok(Settled::Ended(_))));
            assert!(matches!(parked.clone().settle(1, decline(), LATER), Ok(Settled::Ended(_))));
            assert_eq!(parked.settle_by_hand(1, Verdict::Noted, LATER), None);
            assert_eq!(parked, before);
            let mut asked = parked.clone();
            assert_eq!(asked.settle_by_hand(1, Verdict::Retry, LATER), None);
            assert_eq!(asked.attempts[0].state, AttemptState::Unknown { checks: 0, next_check: LATER });
            let message = parked.settle_by_hand(1, Verdict::Declined, LATER).expect("it must be published");
            assert_eq!(message.fact, Fact::Declined { attempt: 1, code: "declined_by_operator".to_owned() });
        }
    }
}

#[test]
fn nobody_decides_on_what_has_ended() {
    for state in [approved(), declined(), AttemptState::Requested] {
        for verdict in [Verdict::Retry, Verdict::Declined, Verdict::Refunded, Verdict::Noted] {
            let mut payment = with_state(state.clone());
            let before = payment.clone();
            assert_eq!(payment.settle_by_hand(1, verdict, LATER), None);
            assert_eq!(payment, before);
        }
    }
}

#[test]
fn money_refunded_at_the_provider_is_an_anomaly_unless_it_was_asked_for() {
    let mut payment = captured();
    let key = AttemptKey { payment_id: payment.id, attempt: 1 };
    let partly = Anomaly::RefundedElsewhere { key, refunded: eur(100), captured: eur(500) };
    assert_eq!(payment.refunded_elsewhere(1, eur(100)), Some(partly));
    assert_eq!(payment.refunded_elsewhere(1, eur(0)), None);
    assert_eq!(payment.refunded_elsewhere(2, eur(100)), None, "a surplus");
    assert!(requested().refunded_elsewhere(1, eur(100)).is_some(), "it may turn out to be captured");
    for ended in [declined(), AttemptState::Parked] {
        assert_eq!(with_state(ended).refunded_elsewhere(1, eur(500)), None);
    }
    payment.request_refund(eur(500), LATER).unwrap();
    assert_eq!(payment.refunded_elsewhere(1, eur(500)), None);
}

#[test]
fn money_taken_after_a_decline_goes_back() {
    let mut payment = with_state(declined());
    let Settled::Surplus(refund) = payment.settle(1, capture(500), LATER).unwrap() else { panic!("must go back") };
    assert_eq!((refund.amount, refund.charge_id.as_deref()), (eur(500), Some("ch_1")));
    assert_eq!(payment.state, PaymentState::Open);
}

#[test]
fn money_taken_by_a_second_attempt_goes_back() {
    let mut payment = captured();
    let mut second = payment.attempts[0].clone();
    second.number = 2;
    second.state = AttemptState::Unknown { checks: 1, next_check: NOW };
    payment.attempts.push(second);
    let Settled::Surplus(refund) = payment.settle(2, capture(500), LATER).unwrap() else { panic!("must go back") };
    assert_eq!(refund.of.attempt, 2);
    assert_eq!(payment.state, PaymentState::Captured { attempt: 1 });
    assert_eq!(payment.finish_refund(2, None, LATER), None);
    assert_eq!(payment.refunded(), eur(0));
}

#[test]
fn an_ended_order_stops_only_what_the_provider_does_not_know() {
    let message = requested().stop(LATER).expect("it must be published");
    assert_eq!(message.fact, Fact::Declined { attempt: 1, code: "order_ended".to_owned() });
    let [_, charging, unknown] = open_states();
    for state in [charging, unknown, approved(), declined()] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.stop(LATER), None);
        assert_eq!(payment, before);
    }
}

#[test]
fn an_ended_order_is_told_again_of_the_money_that_was_captured() {
    let mut payment = captured();
    let version = payment.version;
    let message = payment.stop(LATER).expect("it must be published");
    assert_eq!(message.fact, Fact::Approved { attempt: 1, captured: eur(500) });
    assert_eq!((message.version, payment.state), (version + 1, PaymentState::Captured { attempt: 1 }));
    payment.request_refund(eur(500), LATER).unwrap();
    assert_eq!(payment.stop(LATER), None, "the order knows of it");
}

#[test]
fn an_attempt_that_waits_is_handed_to_one_process() {
    let mut payment = requested();
    let version = payment.version;
    let key = AttemptKey { payment_id: payment.id, attempt: 1 };
    let order =
        ChargeOrder { key, amount: eur(500), payment_method: "pm_card_ok".to_owned(), checks: 0, requested_at: NOW };
    assert_eq!(payment.begin_charge(1, LATER, NOW), Some(order));
    assert_eq!(payment.attempts[0].state, AttemptState::Charging { lease_until: LATER });
    assert_eq!(payment.version, version, "there is nothing to publish");
    assert_eq!(payment.begin_charge(1, LATER, NOW), None, "it is taken");
    assert_eq!(payment.begin_charge(2, LATER, NOW), None, "there is no such attempt");
    assert_eq!(payment.stop(LATER), None, "the provider may know of it");
}

#[test]
fn what_does_not_wait_is_handed_to_nobody() {
    let [_, charging, unknown] = open_states();
    for state in [charging, unknown, approved(), declined()] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.begin_charge(1, LATER, NOW), None);
        assert_eq!(payment, before);
    }
    let mut stopped = requested();
    assert!(stopped.stop(NOW).is_some());
    assert_eq!(stopped.begin_charge(1, LATER, NOW), None, "its order has ended");
}

#[test]
fn a_second_attempt_needs_the_first_to_have_failed() {
    let again = |payment: &mut Payment| payment.request_charge(2, eur(500), "pm".to_owned(), None, LATER);
    let payment_id = requested().id;
    for state in open_states() {
        let under_way = Refusal::AttemptUnderWay { payment_id, number: 1 };
        assert_eq!(again(&mut with_state(state)), Err(under_way));
    }
    let not_open = Refusal::NotOpen { payment_id, state: PaymentState::Captured { attempt: 1 } };
    assert_eq!(again(&mut captured()), Err(not_open));
    let mut failed = with_state(declined());
    assert_eq!(again(&mut failed), Ok(Asked::New(())));
    assert_eq!(failed.attempts[1].state, AttemptState::Requested);
}

/// Returns the payment without what a message about it changes.
fn without_version(payment: &Payment) -> Payment {
    Payment { version: 0, updated_at: NOW, is_unsaved: false, ..payment.clone() }
}

/// Requests an attempt again, which must begin nothing. Returns what is published of it.
fn asked_again(payment: &mut Payment, number: i32) -> Option<Fact> {
    let before = payment.clone();
    let asked = payment.request_charge(number, eur(500), "pm".to_owned(), None, LATER);
    assert_eq!(without_version(payment), without_version(&before));
    match asked {
        Ok(Asked::Before(None)) => {
            assert_eq!(*payment, before);
            None
        }
        Ok(Asked::Before(Some(message))) => {
            assert_eq!((message.version, payment.version), (before.version + 1, before.version + 1));
            Some(message.fact)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_that_comes_again_is_answered_by_the_outcome_if_there_is_one() {
    for state in open_states() {
        assert_eq!(asked_again(&mut with_state(state), 1), None);
    }
    let approved = Some(Fact::Approved { attempt: 1, captured: eur(500) });
    assert_eq!(asked_again(&mut captured(), 1), approved);
    let mut refunded = captured();
    refunded.request_refund(eur(500), NOW).unwrap();
    assert_eq!(asked_again(&mut refunded, 1), approved);
    refunded.finish_refund(1, None, NOW).unwrap();
    assert_eq!(asked_again(&mut refunded, 1), approved);

    let mut failed = with_state(declined());
    let first = Some(Fact::Declined { attempt: 1, code: "card_declined".to_owned() });
    assert_eq!(asked_again(&mut failed, 1), first);
    failed.request_charge(2, eur(500), "pm".to_owned(), None, LATER).unwrap();
    assert_eq!((asked_again(&mut failed, 1), asked_again(&mut failed, 2)), (None, None));
    failed.settle(2, capture(500), LATER).unwrap();
    let second = Some(Fact::Approved { attempt: 2, captured: eur(500) });
    assert_eq!((asked_again(&mut failed, 1), asked_again(&mut failed, 2)), (None, second));
}

#[test]
fn an_attempt_over_another_amount_is_refused() {
    let mut payment = with_state(declined());
    let refused = payment.request_charge(2, eur(501), "pm".to_owned(), None, LATER);
    assert!(matches!(refused, Err(Refusal::AmountDiffers { .. })));
}

/// Requests the refund and returns it, which must be new.
fn new_refund(payment: &mut Payment) -> Refund {
    match payment.request_refund(eur(500), LATER) {
        Ok(Asked::New(refund)) => refund,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refund_takes_everything_back_once() {
    let mut payment = captured();
    let mut refund = new_refund(&mut payment);
    assert_eq!((payment.state.as_str(), payment.refunded()), ("REFUNDING", eur(0)));
    assert_eq!(payment.request_refund(eur(500), LATER), Ok(Asked::Before(None)));

    assert_eq!(refund.settle(RefundOutcome::Unresolved, LATER), RefundSettled::StillOpen);
    let due = LATER.plus(pause(payment.id, 1));
    assert_eq!(refund.state, RefundState::Requested { checks: 1, due });
    let done = RefundOutcome::Refunded { refund_id: Some("re_1".to_owned()) };
    assert_eq!(refund.settle(done, LATER), RefundSettled::Finished);
    for late in [RefundOutcome::Unresolved, RefundOutcome::InDoubt(Doubt::Failed)] {
        assert_eq!(refund.settle(late, LATER), RefundSettled::KnownBefore, "done stays done");
    }

    let message = payment.finish_refund(1, None, LATER).expect("it must be published");
    assert_eq!(message.fact, Fact::Refunded { refunded: eur(500) });
    assert_eq!((payment.captured(), payment.refunded()), (eur(500), eur(500)));
    assert_eq!(payment.finish_refund(1, None, LATER), None);
    let before = payment.clone();
    let again = OutgoingMessage { version: message.version + 1, ..message };
    assert_eq!(payment.request_refund(eur(500), LATER), Ok(Asked::Before(Some(again))));
    assert_eq!(without_version(&payment), without_version(&before));
}

#[test]
fn a_refund_that_failed_is_parked_until_the_provider_or_a_person_ends_it() {
    let mut refund = new_refund(&mut captured());
    let anomaly = Anomaly::RefundInDoubt { key: refund.of, doubt: Doubt::Failed };
    let failed = RefundOutcome::InDoubt(Doubt::Failed);
    assert_eq!(refund.settle(failed.clone(), LATER), RefundSettled::Parked(anomaly));
    for nothing_new in [failed, RefundOutcome::Unresolved] {
        assert_eq!(refund.settle(nothing_new, LATER), RefundSettled::KnownBefore);
    }
    assert_eq!(refund.clone().settle(RefundOutcome::Refunded { refund_id: None }, LATER), RefundSettled::Finished);
    assert!(!refund.clone().settle_by_hand(Verdict::Noted, LATER));
    assert!(refund.clone().settle_by_hand(Verdict::Refunded, LATER));
    assert!(!refund.settle_by_hand(Verdict::Retry, LATER));
    assert_eq!(refund.state, RefundState::Requested { checks: 1, due: LATER }, "to be looked up first");
    assert!(!refund.settle_by_hand(Verdict::Refunded, LATER), "it is not parked any more");
}

#[test]
fn nothing_captured_means_nothing_to_refund() {
    let mut payment = requested();
    assert_eq!(payment.request_refund(eur(500), LATER), Err(Refusal::NothingCaptured(payment.order_id)));
    assert!(matches!(captured().request_refund(eur(499), LATER), Err(Refusal::AmountDiffers { .. })));
}

#[test]
fn each_change_makes_one_version() {
    let mut payment = requested();
    assert_eq!(payment.version, 1);
    payment.settle(1, capture(500), NOW).unwrap();
    payment.request_refund(eur(500), NOW).unwrap();
    payment.finish_refund(1, None, NOW).unwrap();
    assert_eq!(payment.version, 4);
}

/// Returns the payment as if it had been read from the database.
fn as_read(mut payment: Payment) -> Payment {
    payment.is_unsaved = false;
    payment.attempts.iter_mut().for_each(|attempt| attempt.is_unsaved = false);
    payment
}

#[test]
fn a_step_marks_the_rows_that_it_changes_and_no_other() {
    let unsaved = |payment: &Payment| {
        let attempts: Vec<bool> = payment.attempts.iter().map(|attempt| attempt.is_unsaved).collect();
        (payment.is_unsaved, attempts)
    };
    let mut payment = as_read(with_state(declined()));
    assert_eq!(payment.settle(1, decline(), LATER), Ok(Settled::KnownBefore));
    assert_eq!(unsaved(&payment), (false, vec![false]));
    payment.request_charge(2, eur(500), "pm".to_owned(), None, LATER).unwrap();
    assert_eq!(unsaved(&payment), (true, vec![false, true]));

    let mut payment = as_read(payment);
    payment.begin_charge(2, LATER, NOW).expect("it is queued");
    assert_eq!(unsaved(&payment), (false, vec![false, true]));
    payment.settle(2, Outcome::Unresolved, LATER).unwrap();
    assert_eq!(unsaved(&payment), (false, vec![false, true]), "what nobody is told of is no version of the payment");

    let mut payment = as_read(captured());
    new_refund(&mut payment);
    assert_eq!(unsaved(&payment), (true, vec![false]));
}

#[test]
fn keys_read_back_and_nothing_else_does() {
    let key = AttemptKey { payment_id: requested().id, attempt: 7 };
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(RefundKey(key).to_string().parse(), Ok(RefundKey(key)));
    let payment = key.payment_id;
    for bad in [
        payment.to_string(),
        format!("{payment}:"),
        format!("{payment}:0"),
        format!("{payment}:+7"),
        format!("{payment}:07"),
        format!("{payment}:7:refund"),
        "x:7".to_owned(),
    ] {
        assert!(bad.parse::<AttemptKey>().is_err(), "{bad}");
    }
    assert!(key.to_string().parse::<RefundKey>().is_err());
}

#[test]
fn pauses_grow_to_half_a_minute_and_are_spread() {
    let low = PaymentId::from_uuid(Uuid::from_u128(0));
    let high = PaymentId::from_uuid(Uuid::from_u128(255));
    assert_eq!((pause(low, 1), pause(high, 1)), (Duration::from_millis(250), Duration::from_millis(500)));
    assert_eq!(pause(high, 3), Duration::from_secs(2));
    assert_eq!(pause(high, u32::MAX), Duration::from_secs(30));
    let hour = Duration::from_secs(3_600);
    assert_eq!((rare_pause(high, hour), rare_pause(high, 100 * hour)), (hour / 16, hour));
}
