//! Refunds that were made by hand at the provider.

use super::*;

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
fn money_refunded_at_the_provider_is_booked_once_and_only_where_it_is_kept() {
    let mut payment = captured();
    assert_eq!(payment.book_refund_elsewhere(2, LATER), None, "a surplus");
    let step = payment.book_refund_elsewhere(1, LATER).expect("it is booked");
    let (refund, message) = (step.refund.expect("a refund"), step.message.expect("a message"));
    assert_eq!((refund.amount, refund.charge_id.as_deref()), (eur(500), Some("ch_1")));
    assert_eq!(refund.state, RefundState::Refunded { refund_id: None });
    assert_eq!((message.version, message.body), (payment.version, MessageBody::Refunded { refunded: eur(500) }));
    assert_eq!((payment.state, payment.refunded()), (PaymentState::Refunded { attempt: 1 }, eur(500)));
    assert_eq!(payment.book_refund_elsewhere(1, LATER), None);

    let mut refunding = captured();
    refunding.request_refund(eur(500), LATER).unwrap();
    for mut other in [refunding, requested()] {
        let before = other.clone();
        assert_eq!(other.book_refund_elsewhere(1, LATER), None);
        assert_eq!(other, before);
    }
}
