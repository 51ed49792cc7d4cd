//! The payment of one order: its attempts and its transitions.

use crate::domain::{
    Anomaly, Attempt, AttemptKey, AttemptState, ChargeRequest, MessageBody, Outcome, OutgoingMessage, Refund, Refusal,
    Step, Verdict,
    backoff::{backoff, slow_backoff},
};
use stampede_vocab::{Money, OrderId, PaymentId, Timestamp, UserId};
use std::{fmt, time::Duration};

/// Decline code of a queued attempt whose order has ended.
const ORDER_ENDED: &str = "order_ended";
/// Decline code of a parked attempt that an operator has declined.
const DECLINED_BY_OPERATOR: &str = "declined_by_operator";

/// The state of a payment. It is always captured and refunded as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentState {
    /// No attempt has succeeded so far.
    Open,
    /// An attempt has captured the money.
    Captured {
        /// That attempt.
        attempt: i32,
    },
    /// A refund was requested and is not done.
    Refunding {
        /// The attempt that captured the money.
        attempt: i32,
    },
    Refunded {
        /// The attempt that captured the money.
        attempt: i32,
    },
}

impl PaymentState {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Captured { .. } => "CAPTURED",
            Self::Refunding { .. } => "REFUNDING",
            Self::Refunded { .. } => "REFUNDED",
        }
    }

    /// Returns the attempt that captured the money.
    pub fn captured_attempt(self) -> Option<i32> {
        match self {
            Self::Open => None,
            Self::Captured { attempt } | Self::Refunding { attempt } | Self::Refunded { attempt } => Some(attempt),
        }
    }
}

impl fmt::Display for PaymentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The payment of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Id, derived from the order.
    pub id: PaymentId,
    pub order_id: OrderId,
    /// Buyer.
    pub user_id: UserId,
    /// The amount to pay. What an attempt has captured is in [`Outcome::Captured`].
    pub amount: Money,
    pub state: PaymentState,
    /// In order of their numbers.
    pub attempts: Vec<Attempt>,
    /// Grows by one with each change of the payment.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How an outcome changed the payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The attempt has ended, which is published.
    Ended(Step),
    /// It has not ended; the next look-up is scheduled.
    StillOpen(Step),
    /// The outcome was stored before.
    AlreadyKnown,
    /// A surplus was captured, and its refund is requested.
    Surplus(Step),
    /// The attempt is parked, for an operator to settle.
    Parked(Anomaly, Step),
}

impl Payment {
    /// Returns a payment without attempts.
    pub fn open(order_id: OrderId, user_id: UserId, amount: Money, now: Timestamp) -> Self {
        Self {
            id: PaymentId::derive(order_id),
            order_id,
            user_id,
            amount,
            state: PaymentState::Open,
            attempts: Vec::new(),
            version: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Returns the captured amount: the whole or zero.
    pub fn captured(&self) -> Money {
        match self.state {
            PaymentState::Open => Money::zero(self.amount.currency),
            PaymentState::Captured { .. } | PaymentState::Refunding { .. } | PaymentState::Refunded { .. } => {
                self.amount
            }
        }
    }

    /// Returns the refunded amount: the whole or zero.
    pub fn refunded(&self) -> Money {
        match self.state {
            PaymentState::Refunded { .. } => self.amount,
            PaymentState::Open | PaymentState::Captured { .. } | PaymentState::Refunding { .. } => {
                Money::zero(self.amount.currency)
            }
        }
    }

    /// Queues an attempt, which the step names. Idempotent: a known attempt is not queued again. If it is the last one
    /// and has ended, its outcome is published again, since the order service may have lost the first message.
    ///
    /// Fails if the payment cannot be charged any more, another attempt is under way, or the amount differs.
    pub fn request_charge(
        &mut self,
        number: i32,
        amount: Money,
        payment_method: String,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Step>, Refusal> {
        if self.attempt(number).is_some() {
            return Ok(self.publish_again(number, now));
        }
        self.require_amount(amount)?;
        if self.state != PaymentState::Open {
            return Err(Refusal::NotOpen { payment_id: self.id, state: self.state });
        }
        if let Some(open) = self.attempts.iter().find(|attempt| !attempt.state.is_final()) {
            return Err(Refusal::AttemptUnderWay { payment_id: self.id, number: open.number });
        }
        self.attempts.push(Attempt {
            number,
            payment_method,
            state: AttemptState::Requested,
            traceparent,
            created_at: now,
            updated_at: now,
        });
        let step = Step::of_attempt(self.key(number));
        Ok(Some(self.next_version(step, now)))
    }

    /// Leases a queued attempt to this process until `lease_until`, and returns the request to the provider. Returns
    /// `None` if the attempt is not queued: another process has it, or it has ended.
    #[must_use = "a step that is not recorded is not written"]
    pub fn begin_charge(
        &mut self,
        number: i32,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Option<(ChargeRequest, Step)> {
        let waiting = self.attempt(number).filter(|attempt| attempt.state == AttemptState::Requested)?;
        let (payment_method, requested_at) = (waiting.payment_method.clone(), waiting.created_at);
        let key = self.key(number);
        let charge = ChargeRequest { key, amount: self.amount, payment_method, checks: 0, requested_at };
        Some((charge, self.change_attempt(number, AttemptState::Charging { lease_until }, now)))
    }

    /// Declines a queued attempt, since its order has ended. An attempt that may have been sent goes on.
    ///
    /// If money was captured, publishes that again: an order that ended unpaid has not applied the first message. It is
    /// on its way, or was lost with a database that was restored. The order then has its units committed again or
    /// requests a refund.
    #[must_use = "a step that is not recorded is not written"]
    pub fn stop(&mut self, now: Timestamp) -> Option<Step> {
        if let Some(captured) = self.republish_capture(now) {
            return Some(captured);
        }
        let waiting = self.attempts.iter().find(|attempt| attempt.state == AttemptState::Requested)?;
        let number = waiting.number;
        Some(self.end_declined(number, ORDER_ENDED.to_owned(), now))
    }

    /// Publishes the capture again, under a new version, unless a refund was requested.
    #[must_use = "a step that is not recorded is not written"]
    pub fn republish_capture(&mut self, now: Timestamp) -> Option<Step> {
        let PaymentState::Captured { attempt } = self.state else { return None };
        let step = self.next_version(Step::default(), now);
        let body = MessageBody::Approved { attempt, captured: self.amount };
        Some(step.publishing(self.message(self.traceparent(attempt), body)))
    }

    /// Returns whether money was captured and no refund is requested, or an attempt that has not ended may still
    /// capture it.
    pub fn may_be_captured(&self) -> bool {
        match self.state {
            PaymentState::Captured { .. } => true,
            PaymentState::Open => self.attempts.iter().any(|attempt| !attempt.state.is_final()),
            PaymentState::Refunding { .. } | PaymentState::Refunded { .. } => false,
        }
    }

    /// Requests the refund of the captured amount. A repeat requests nothing; if the refund is done, that is published
    /// again.
    ///
    /// Fails if nothing was captured, or the amount differs.
    pub fn request_refund(&mut self, amount: Money, now: Timestamp) -> Result<Option<Step>, Refusal> {
        self.require_amount(amount)?;
        match self.state {
            PaymentState::Open => Err(Refusal::NothingCaptured(self.order_id)),
            PaymentState::Captured { attempt } => {
                self.state = PaymentState::Refunding { attempt };
                let step = self.next_version(Step::default(), now);
                Ok(Some(step.requesting(self.refund_of(attempt, self.charge_id(attempt), now))))
            }
            PaymentState::Refunding { .. } => Ok(None),
            PaymentState::Refunded { .. } => {
                let step = self.next_version(Step::default(), now);
                Ok(Some(step.publishing(self.message(None, MessageBody::Refunded { refunded: self.amount }))))
            }
        }
    }

    /// Finishes the refund of this attempt's charge, which is published. Returns `None` for a surplus, whose capture
    /// was never published.
    #[must_use = "a step that is not recorded is not written"]
    pub fn finish_refund(&mut self, number: i32, traceparent: Option<String>, now: Timestamp) -> Option<Step> {
        if self.state != (PaymentState::Refunding { attempt: number }) {
            return None;
        }
        self.state = PaymentState::Refunded { attempt: number };
        let step = self.next_version(Step::default(), now);
        Some(step.publishing(self.message(traceparent, MessageBody::Refunded { refunded: self.amount })))
    }

    /// Applies the outcome of an attempt, from an answer, a look-up or a notice. Idempotent.
    ///
    /// Fails if the outcome contradicts what is stored.
    pub fn settle(&mut self, number: i32, outcome: Outcome, now: Timestamp) -> Result<Settled, Anomaly> {
        let key = self.key(number);
        let state = self.attempt(number).map(|attempt| attempt.state.clone()).ok_or(Anomaly::NoSuchAttempt(key))?;
        match (state, outcome) {
            (state, Outcome::Captured { amount, .. }) if amount != self.amount => {
                self.park(number, &state, Anomaly::WrongAmount { key, asked: self.amount, captured: amount }, now)
            }
            (
                AttemptState::Approved { charge_id: Some(known) },
                Outcome::Captured { charge_id: Some(reported), .. },
            ) if known != reported => Err(Anomaly::AnotherCharge { key, known, reported }),
            (AttemptState::Approved { .. }, Outcome::Captured { .. })
            | (AttemptState::Declined { .. }, Outcome::Declined { .. })
            | (AttemptState::Requested, Outcome::NotSent)
            | (AttemptState::Approved { .. } | AttemptState::Declined { .. }, Outcome::InDoubt(_))
            | (
                AttemptState::Approved { .. } | AttemptState::Declined { .. } | AttemptState::Parked,
                Outcome::Unresolved | Outcome::LongPending | Outcome::NotSent,
            ) => Ok(Settled::AlreadyKnown),
            (state, Outcome::InDoubt(doubt)) => self.park(number, &state, Anomaly::ChargeInDoubt { key, doubt }, now),
            (AttemptState::Approved { .. }, Outcome::Declined { .. }) => Err(Anomaly::DeclinedAfterCapture(key)),
            // The decline was published and the order may have been paid by another attempt, so this capture is a
            // surplus.
            (AttemptState::Declined { .. }, Outcome::Captured { charge_id, .. }) => {
                Ok(Settled::Surplus(Step::default().requesting(self.refund_of(number, charge_id, now))))
            }
            (_, Outcome::Captured { charge_id, .. }) => Ok(self.end_captured(number, charge_id, now)),
            (_, Outcome::Declined { code }) => Ok(Settled::Ended(self.end_declined(number, code, now))),
            // Only the process that has claimed it reports this, and no other has had it, so it is queued again and can
            // be stopped.
            (AttemptState::Charging { .. }, Outcome::NotSent) => {
                Ok(Settled::StillOpen(self.change_attempt(number, AttemptState::Requested, now)))
            }
            (open, Outcome::Unresolved | Outcome::NotSent) => {
                let checks = open.checks().saturating_add(1);
                let next_check = now.plus(backoff(self.id, checks));
                let unknown = AttemptState::Unknown { checks, next_check };
                Ok(Settled::StillOpen(self.change_attempt(number, unknown, now)))
            }
            // It was answered, so that what fails from now on is counted anew.
            (_, Outcome::LongPending) => {
                let age = self.attempt(number).map_or(Duration::ZERO, |attempt| now.since(attempt.created_at));
                let next_check = now.plus(slow_backoff(self.id, age));
                let unknown = AttemptState::Unknown { checks: 1, next_check };
                Ok(Settled::StillOpen(self.change_attempt(number, unknown, now)))
            }
        }
    }

    /// Parks an attempt that has not ended. One that has stays as it is, and the anomaly is the answer.
    fn park(
        &mut self,
        number: i32,
        state: &AttemptState,
        anomaly: Anomaly,
        now: Timestamp,
    ) -> Result<Settled, Anomaly> {
        match state {
            AttemptState::Parked => Ok(Settled::AlreadyKnown),
            AttemptState::Approved { .. } | AttemptState::Declined { .. } => Err(anomaly),
            AttemptState::Requested | AttemptState::Charging { .. } | AttemptState::Unknown { .. } => {
                Ok(Settled::Parked(anomaly, self.change_attempt(number, AttemptState::Parked, now)))
            }
        }
    }

    /// Returns whether an attempt is parked.
    pub fn is_parked(&self, number: i32) -> bool {
        self.attempt(number).is_some_and(|attempt| attempt.state == AttemptState::Parked)
    }

    /// Carries out the decision of an operator on a parked attempt. Does nothing if it is not parked any more: the
    /// provider has reported its outcome.
    #[must_use = "a step that is not recorded is not written"]
    pub fn apply_verdict(&mut self, number: i32, verdict: Verdict, now: Timestamp) -> Option<Step> {
        let is_parked = self.is_parked(number);
        match verdict {
            Verdict::Retry if is_parked => {
                let unknown = AttemptState::Unknown { checks: 0, next_check: now };
                Some(self.change_attempt(number, unknown, now))
            }
            Verdict::Declined if is_parked => Some(self.end_declined(number, DECLINED_BY_OPERATOR.to_owned(), now)),
            Verdict::Retry | Verdict::Declined | Verdict::Refunded | Verdict::Noted => None,
        }
    }

    /// Compares the refunds that the provider reports for an attempt's charge with those of this service. Returns an
    /// anomaly if this service has requested none. A refund under way finds out by itself.
    pub fn refunded_elsewhere(&self, number: i32, refunded: Money) -> Option<Anomaly> {
        let key = self.key(number);
        let is_kept_here = match self.state {
            PaymentState::Captured { attempt } => attempt == number,
            // An attempt that is not settled may turn out to be captured.
            PaymentState::Open => {
                self.attempt(number).is_some_and(|found| !found.state.is_final() && !self.is_parked(number))
            }
            PaymentState::Refunding { .. } | PaymentState::Refunded { .. } => false,
        };
        (is_kept_here && refunded.minor_units > 0).then_some(Anomaly::RefundedElsewhere {
            key,
            refunded,
            captured: self.amount,
        })
    }

    /// Records a full refund of this attempt's charge that was made elsewhere, as by hand at the provider, and that the
    /// goods come back. The refund of the step is done. Returns `None` if the capture of this attempt is not the
    /// payment, or a refund is under way, which finds the other one by itself.
    #[must_use = "a step that is not recorded is not written"]
    pub fn book_refund_elsewhere(&mut self, number: i32, now: Timestamp) -> Option<Step> {
        if self.state != (PaymentState::Captured { attempt: number }) {
            return None;
        }
        self.state = PaymentState::Refunded { attempt: number };
        let step = self.next_version(Step::default(), now);
        let refund = Refund::made_elsewhere(self.key(number), self.charge_id(number), self.amount, now);
        let message = self.message(self.traceparent(number), MessageBody::Refunded { refunded: self.amount });
        Some(step.requesting(refund).publishing(message))
    }

    fn end_captured(&mut self, number: i32, charge_id: Option<String>, now: Timestamp) -> Settled {
        let step = self.change_attempt(number, AttemptState::Approved { charge_id: charge_id.clone() }, now);
        let step = self.next_version(step, now);
        // Another attempt has paid already. This one is approved all the same, as it is at the provider.
        if self.state != PaymentState::Open {
            return Settled::Surplus(step.requesting(self.refund_of(number, charge_id, now)));
        }
        self.state = PaymentState::Captured { attempt: number };
        let body = MessageBody::Approved { attempt: number, captured: self.amount };
        Settled::Ended(step.publishing(self.message(self.traceparent(number), body)))
    }

    fn end_declined(&mut self, number: i32, code: String, now: Timestamp) -> Step {
        let step = self.change_attempt(number, AttemptState::Declined { code: code.clone() }, now);
        let step = self.next_version(step, now);
        step.publishing(self.message(self.traceparent(number), MessageBody::Declined { attempt: number, code }))
    }

    /// Publishes the outcome of an attempt again, under a new version.
    fn publish_again(&mut self, number: i32, now: Timestamp) -> Option<Step> {
        let body = self.outcome(number)?;
        let step = self.next_version(Step::default(), now);
        Some(step.publishing(self.message(self.traceparent(number), body)))
    }

    /// Returns the outcome of the last attempt, if it has one; `None` for an earlier attempt, whose outcome the order
    /// had before it requested the next one.
    fn outcome(&self, number: i32) -> Option<MessageBody> {
        if self.attempts.iter().any(|other| other.number > number) {
            return None;
        }
        match (&self.attempt(number)?.state, self.state.captured_attempt()) {
            (AttemptState::Declined { code }, _) => Some(MessageBody::Declined { attempt: number, code: code.clone() }),
            // The attempt that has paid. Nothing is published about a surplus.
            (AttemptState::Approved { .. }, Some(attempt)) => {
                Some(MessageBody::Approved { attempt, captured: self.amount })
            }
            _ => None,
        }
    }

    fn require_amount(&self, asked: Money) -> Result<(), Refusal> {
        if asked == self.amount {
            Ok(())
        } else {
            Err(Refusal::AmountDiffers { payment_id: self.id, expected: self.amount, asked })
        }
    }

    fn attempt(&self, number: i32) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.number == number)
    }

    fn key(&self, number: i32) -> AttemptKey {
        AttemptKey { payment_id: self.id, attempt: number }
    }

    /// Changes an attempt and not the version of the payment: nothing is published.
    fn change_attempt(&mut self, number: i32, state: AttemptState, now: Timestamp) -> Step {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.number == number) {
            attempt.state = state;
            attempt.updated_at = now;
        }
        Step::of_attempt(self.key(number))
    }

    fn charge_id(&self, number: i32) -> Option<String> {
        match &self.attempt(number)?.state {
            AttemptState::Approved { charge_id } => charge_id.clone(),
            _ => None,
        }
    }

    fn traceparent(&self, number: i32) -> Option<String> {
        self.attempt(number)?.traceparent.clone()
    }

    fn refund_of(&self, number: i32, charge_id: Option<String>, now: Timestamp) -> Refund {
        Refund::request(self.key(number), charge_id, self.amount, now)
    }

    /// Increments the version of the payment, as part of this step.
    fn next_version(&mut self, step: Step, now: Timestamp) -> Step {
        self.version += 1;
        self.updated_at = now;
        Step { payment: Some(self.id), ..step }
    }

    fn message(&self, traceparent: Option<String>, body: MessageBody) -> OutgoingMessage {
        OutgoingMessage { payment_id: self.id, order_id: self.order_id, version: self.version, traceparent, body }
    }
}
