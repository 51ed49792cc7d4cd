//! Every answer of the provider against every state, and every request of the order service.

mod by_hand;

use crate::domain::{
    Anomaly, AttemptKey, AttemptState, ChargeRequest, Doubt, MessageBody, Outcome, OutgoingMessage, Payment,
    PaymentState, Refund, RefundOutcome, RefundSettled, RefundState, Refusal, Settled, Step, Verdict,
    backoff::{backoff, slow_backoff},
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

/// Returns the message of a step, which must have one.
fn published(step: Option<Step>) -> OutgoingMessage {
    step.and_then(|step| step.message).expect("it must be published")
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
        let Settled::Ended(step) = payment.settle(1, capture(500), LATER).unwrap() else { panic!("no end") };
        let message = published(Some(step));
        assert_eq!(message.body, MessageBody::Approved { attempt: 1, captured: eur(500) });
        assert_eq!(message.version, payment.version);
        assert_eq!(payment.state, PaymentState::Captured { attempt: 1 });
        assert_eq!((payment.captured(), payment.refunded()), (eur(500), eur(0)));
        let before = payment.clone();
        assert_eq!(payment.settle(1, capture(500), LATER), Ok(Settled::AlreadyKnown));
        assert_eq!(payment, before);
    }
}

#[test]
fn a_decline_ends_every_open_attempt_and_leaves_the_payment_open() {
    for state in open_states() {
        let mut payment = with_state(state);
        let Settled::Ended(step) = payment.settle(1, decline(), LATER).unwrap() else { panic!("no end") };
        assert_eq!(published(Some(step)).body, MessageBody::Declined { attempt: 1, code: "card_declined".to_owned() });
        assert_eq!((payment.state, payment.captured()), (PaymentState::Open, eur(0)));
        assert_eq!(payment.settle(1, decline(), LATER), Ok(Settled::AlreadyKnown));
    }
}

#[test]
fn what_was_not_sent_is_queued_again_unless_somebody_else_may_have_sent_it() {
    let [_, charging, unknown] = open_states();
    let mut held_back = with_state(charging);
    assert!(matches!(held_back.settle(1, Outcome::NotSent, LATER), Ok(Settled::StillOpen(_))));
    assert_eq!(held_back.attempts[0].state, AttemptState::Requested);
    assert!(held_back.stop(LATER).is_some(), "its order can end without it");
    let mut sent = with_state(unknown);
    assert!(matches!(sent.settle(1, Outcome::NotSent, LATER), Ok(Settled::StillOpen(_))));
    assert!(matches!(sent.attempts[0].state, AttemptState::Unknown { checks: 4, .. }));
    for state in [AttemptState::Requested, approved(), declined(), AttemptState::Parked] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.settle(1, Outcome::NotSent, LATER), Ok(Settled::AlreadyKnown));
        assert_eq!(payment, before);
    }
}

#[test]
fn without_an_answer_the_next_look_up_is_scheduled_and_nothing_is_published() {
    for (state, checks) in open_states().into_iter().zip([1, 1, 4]) {
        let mut payment = with_state(state);
        let version = payment.version;
        let settled = payment.settle(1, Outcome::Unresolved, NOW);
        assert!(matches!(&settled, Ok(Settled::StillOpen(step)) if step.message.is_none()), "{settled:?}");
        let next_check = NOW.plus(backoff(payment.id, checks));
        assert_eq!(payment.attempts[0].state, AttemptState::Unknown { checks, next_check });
        assert_eq!(payment.version, version);
    }
}

#[test]
fn what_is_pending_for_long_is_looked_up_rarely_and_reopens_nothing() {
    let now = LATER.plus(Duration::from_secs(86_400));
    let mut payment = with_state(AttemptState::Unknown { checks: 3_000, next_check: NOW });
    assert!(matches!(payment.settle(1, Outcome::LongPending, now), Ok(Settled::StillOpen(_))));
    let next = now.plus(slow_backoff(payment.id, now.since(NOW)));
    assert!(next.since(now) >= HALF_AN_HOUR);
    assert_eq!(payment.attempts[0].state, AttemptState::Unknown { checks: 1, next_check: next });
    for state in [approved(), declined(), AttemptState::Parked] {
        let mut ended = with_state(state);
        assert_eq!(ended.settle(1, Outcome::LongPending, now), Ok(Settled::AlreadyKnown));
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
        assert_eq!(payment.settle(1, Outcome::Unresolved, LATER), Ok(Settled::AlreadyKnown));
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
            let step = Step { attempt: Some(key), ..Step::default() };
            assert_eq!(parked.settle(1, outcome.clone(), LATER), Ok(Settled::Parked(anomaly, step)));
            assert_eq!((&parked.attempts[0].state, parked.state), (&AttemptState::Parked, PaymentState::Open));
            assert_eq!(parked.version, version, "there is nothing to publish");
            let before = parked.clone();
            for nothing_new in [outcome, Outcome::Unresolved] {
                assert_eq!(parked.settle(1, nothing_new, LATER), Ok(Settled::AlreadyKnown));
                assert_eq!(parked, before);
            }
            let again = parked.request_charge(2, eur(500), "pm".to_owned(), None, LATER);
            assert!(matches!(again, Err(Refusal::AttemptUnderWay { .. })), "it may have been charged: {again:?}");

            assert!(matches!(parked.clone().settle(1, capture(500), LATER), Ok(Settled::Ended(_))));
            assert!(matches!(parked.clone().settle(1, decline(), LATER), Ok(Settled::Ended(_))));
            assert_eq!(parked.apply_verdict(1, Verdict::Noted, LATER), None);
            assert_eq!(parked, before);
            let mut asked = parked.clone();
            assert!(asked.apply_verdict(1, Verdict::Retry, LATER).is_some_and(|step| step.message.is_none()));
            assert_eq!(asked.attempts[0].state, AttemptState::Unknown { checks: 0, next_check: LATER });
            let message = published(parked.apply_verdict(1, Verdict::Declined, LATER));
            assert_eq!(message.body, MessageBody::Declined { attempt: 1, code: "declined_by_operator".to_owned() });
        }
    }
}

#[test]
fn nobody_decides_on_what_has_ended() {
    for state in [approved(), declined(), AttemptState::Requested] {
        for verdict in [Verdict::Retry, Verdict::Declined, Verdict::Refunded, Verdict::Noted] {
            let mut payment = with_state(state.clone());
            let before = payment.clone();
            assert_eq!(payment.apply_verdict(1, verdict, LATER), None);
            assert_eq!(payment, before);
        }
    }
}

#[test]
fn money_taken_after_a_decline_goes_back() {
    let mut payment = with_state(declined());
    let Settled::Surplus(step) = payment.settle(1, capture(500), LATER).unwrap() else { panic!("must go back") };
    assert_eq!((step.payment, step.attempt, &step.message), (None, None, &None), "it is declined as before");
    let refund = step.refund.expect("must go back");
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
    let Settled::Surplus(step) = payment.settle(2, capture(500), LATER).unwrap() else { panic!("must go back") };
    assert_eq!((step.refund.expect("must go back").of.attempt, step.message), (2, None));
    assert_eq!(payment.state, PaymentState::Captured { attempt: 1 });
    assert_eq!(payment.finish_refund(2, None, LATER), None);
    assert_eq!(payment.refunded(), eur(0));
}

#[test]
fn an_ended_order_stops_only_what_the_provider_does_not_know() {
    let message = published(requested().stop(LATER));
    assert_eq!(message.body, MessageBody::Declined { attempt: 1, code: "order_ended".to_owned() });
    let [_, charging, unknown] = open_states();
    for state in [charging, unknown, approved(), declined()] {
        let mut payment = with_state(state);
        let before = payment.clone();
        assert_eq!(payment.stop(LATER), None);
        assert_eq!(payment, before);
    }
}

#[test]
fn money_captured_for_an_ended_order_is_published_again() {
    let mut payment = captured();
    let version = payment.version;
    let message = published(payment.stop(LATER));
    assert_eq!(message.body, MessageBody::Approved { attempt: 1, captured: eur(500) });
    assert_eq!((message.version, payment.state), (version + 1, PaymentState::Captured { attempt: 1 }));
    payment.request_refund(eur(500), LATER).unwrap();
    assert_eq!(payment.stop(LATER), None, "the order knows of it");
}

#[test]
fn an_attempt_that_waits_is_handed_to_one_process() {
    let mut payment = requested();
    let version = payment.version;
    let key = AttemptKey { payment_id: payment.id, attempt: 1 };
    let charge =
        ChargeRequest { key, amount: eur(500), payment_method: "pm_card_ok".to_owned(), checks: 0, requested_at: NOW };
    assert_eq!(payment.begin_charge(1, LATER, NOW).map(|(charge, _)| charge), Some(charge));
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
    assert_eq!(again(&mut failed).unwrap().and_then(|step| step.attempt), Some(AttemptKey { payment_id, attempt: 2 }));
    assert_eq!(failed.attempts[1].state, AttemptState::Requested);
}

/// Returns the payment without what a message about it changes.
fn without_version(payment: &Payment) -> Payment {
    Payment { version: 0, updated_at: NOW, ..payment.clone() }
}

/// Requests an attempt again, which must begin nothing. Returns what is published of it.
fn asked_again(payment: &mut Payment, number: i32) -> Option<MessageBody> {
    let before = payment.clone();
    let asked = payment.request_charge(number, eur(500), "pm".to_owned(), None, LATER);
    assert_eq!(without_version(payment), without_version(&before));
    let Some(step) = asked.unwrap() else {
        assert_eq!(*payment, before);
        return None;
    };
    assert_eq!((step.payment, step.attempt), (Some(payment.id), None));
    let message = published(Some(step));
    assert_eq!((message.version, payment.version), (before.version + 1, before.version + 1));
    Some(message.body)
}

#[test]
fn a_request_that_comes_again_is_answered_by_the_outcome_if_there_is_one() {
    for state in open_states() {
        assert_eq!(asked_again(&mut with_state(state), 1), None);
    }
    let approved = Some(MessageBody::Approved { attempt: 1, captured: eur(500) });
    assert_eq!(asked_again(&mut captured(), 1), approved);
    let mut refunded = captured();
    refunded.request_refund(eur(500), NOW).unwrap();
    assert_eq!(asked_again(&mut refunded, 1), approved);
    assert!(refunded.finish_refund(1, None, NOW).is_some());
    assert_eq!(asked_again(&mut refunded, 1), approved);

    let mut failed = with_state(declined());
    let first = Some(MessageBody::Declined { attempt: 1, code: "card_declined".to_owned() });
    assert_eq!(asked_again(&mut failed, 1), first);
    failed.request_charge(2, eur(500), "pm".to_owned(), None, LATER).unwrap();
    assert_eq!((asked_again(&mut failed, 1), asked_again(&mut failed, 2)), (None, None));
    failed.settle(2, capture(500), LATER).unwrap();
    let second = Some(MessageBody::Approved { attempt: 2, captured: eur(500) });
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
    let step = payment.request_refund(eur(500), LATER).unwrap().expect("it is new");
    step.refund.expect("it is requested")
}

#[test]
fn a_refund_takes_everything_back_once() {
    let mut payment = captured();
    let mut refund = new_refund(&mut payment);
    assert_eq!((payment.state.as_str(), payment.refunded()), ("REFUNDING", eur(0)));
    assert_eq!(payment.request_refund(eur(500), LATER), Ok(None));

    assert_eq!(refund.settle(RefundOutcome::Unresolved, LATER), RefundSettled::StillOpen);
    let due = LATER.plus(backoff(payment.id, 1));
    assert_eq!(refund.state, RefundState::Requested { checks: 1, due });
    let done = RefundOutcome::Refunded { refund_id: Some("re_1".to_owned()) };
    assert_eq!(refund.settle(done, LATER), RefundSettled::Finished);
    for late in [RefundOutcome::Unresolved, RefundOutcome::InDoubt(Doubt::Failed)] {
        assert_eq!(refund.settle(late, LATER), RefundSettled::AlreadyKnown, "done stays done");
    }
    let failed = RefundOutcome::InDoubt(Doubt::Failed);
    let taken_back = Anomaly::RefundTakenBack { key: refund.of, doubt: Doubt::Failed };
    assert_eq!(refund.taken_back(&failed), Some(taken_back));
    for nothing_said in [RefundOutcome::Unresolved, RefundOutcome::InDoubt(Doubt::NoAnswer)] {
        assert_eq!(refund.taken_back(&nothing_said), None);
    }
    let another_way = Refund { state: RefundState::Refunded { refund_id: None }, ..refund };
    assert_eq!(another_way.taken_back(&failed), None);

    let message = published(payment.finish_refund(1, None, LATER));
    assert_eq!(message.body, MessageBody::Refunded { refunded: eur(500) });
    assert_eq!((payment.captured(), payment.refunded()), (eur(500), eur(500)));
    assert_eq!(payment.finish_refund(1, None, LATER), None);
    let before = payment.clone();
    let again = OutgoingMessage { version: message.version + 1, ..message };
    assert_eq!(published(payment.request_refund(eur(500), LATER).unwrap()), again);
    assert_eq!(without_version(&payment), without_version(&before));
}

#[test]
fn a_refund_that_failed_is_parked_until_the_provider_or_a_person_ends_it() {
    let mut refund = new_refund(&mut captured());
    let anomaly = Anomaly::RefundInDoubt { key: refund.of, doubt: Doubt::Failed };
    let failed = RefundOutcome::InDoubt(Doubt::Failed);
    assert_eq!(refund.settle(failed.clone(), LATER), RefundSettled::Parked(anomaly));
    for nothing_new in [failed, RefundOutcome::Unresolved] {
        assert_eq!(refund.settle(nothing_new, LATER), RefundSettled::AlreadyKnown);
    }
    assert_eq!(refund.clone().settle(RefundOutcome::Refunded { refund_id: None }, LATER), RefundSettled::Finished);
    assert!(!refund.clone().apply_verdict(Verdict::Noted, LATER));
    assert!(refund.clone().apply_verdict(Verdict::Refunded, LATER));
    assert!(!refund.apply_verdict(Verdict::Retry, LATER));
    assert_eq!(refund.state, RefundState::Requested { checks: 1, due: LATER }, "to be looked up first");
    assert!(!refund.apply_verdict(Verdict::Refunded, LATER), "it is not parked any more");
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
    assert!(payment.finish_refund(1, None, NOW).is_some());
    assert_eq!(payment.version, 4);
}

#[test]
fn a_step_names_the_rows_that_it_changes_and_no_other() {
    let rows = |step: &Step| (step.payment.is_some(), step.attempt.map(|key| key.attempt));
    let mut payment = with_state(declined());
    let step = payment.request_charge(2, eur(500), "pm".to_owned(), None, LATER).unwrap().expect("it is new");
    assert_eq!(rows(&step), (true, Some(2)));
    let (_, step) = payment.begin_charge(2, LATER, NOW).expect("it is queued");
    assert_eq!(rows(&step), (false, Some(2)), "nothing is published");
    let Ok(Settled::StillOpen(step)) = payment.settle(2, Outcome::Unresolved, LATER) else { panic!("it is open") };
    assert_eq!(rows(&step), (false, Some(2)), "nothing is published");
    let Ok(Settled::Ended(step)) = payment.settle(2, capture(500), LATER) else { panic!("it has ended") };
    assert_eq!((rows(&step), step.refund), ((true, Some(2)), None));
    let step = payment.request_refund(eur(500), LATER).unwrap().expect("it is new");
    assert_eq!((rows(&step), step.message), ((true, None), None));
    let step = payment.finish_refund(2, None, LATER).expect("it is published");
    assert_eq!((rows(&step), step.refund), ((true, None), None));
}

#[test]
fn what_a_request_brings_about_is_in_the_trace_of_the_request() {
    let trace = Some("00-1-2-01".to_owned());
    let mut payment = captured();
    let step = payment.request_refund(eur(500), LATER).unwrap().expect("it is new").traced(trace.clone());
    assert_eq!(step.refund.expect("it is requested").traceparent, trace);
    assert!(payment.finish_refund(1, None, LATER).is_some());
    let step = payment.request_refund(eur(500), LATER).unwrap().map(|step| step.traced(trace.clone()));
    assert_eq!(published(step).traceparent, trace);
}

#[test]
fn pauses_grow_to_half_a_minute_and_are_spread() {
    let low = PaymentId::from_uuid(Uuid::from_u128(0));
    let high = PaymentId::from_uuid(Uuid::from_u128(255));
    assert_eq!((backoff(low, 1), backoff(high, 1)), (Duration::from_millis(250), Duration::from_millis(500)));
    assert_eq!(backoff(high, 3), Duration::from_secs(2));
    assert_eq!(backoff(high, u32::MAX), Duration::from_secs(30));
    let hour = Duration::from_secs(3_600);
    assert_eq!((slow_backoff(high, hour), slow_backoff(high, 100 * hour)), (hour / 16, hour));
}
