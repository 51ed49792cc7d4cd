//! The state machine: the transition for each input in each state.
//!
//! An input that does not apply in a state is ignored, never an error: it comes from a service whose view of the order
//! is older. A request of a buyer or operator is refused instead, with the state.

use super::{CommandRefusal, EndRequest, EndVerb, MessageBody, Order, PayRequest, RefundOrigin, State, StateName};
use stampede_vocab::{ItemId, RequestId, Timestamp, UserId};
use std::time::Duration;

/// An input of the state machine.
#[derive(Clone)]
pub enum Input {
    /// The ledger has committed all units of an order that was paid late, or placed by an earlier release.
    StockCommitted {
        /// The gifts that were committed with each item; fewer than were reserved if some were gone. An item that is
        /// left out keeps its reserved gifts.
        gifts: Vec<(ItemId, i32)>,
    },
    /// The ledger has committed nothing.
    StockRejected,
    /// The money was captured.
    PaymentApproved {
        attempt: i32,
    },
    /// The money was captured for an order of a cancelled event.
    PaymentApprovedAfterCancel {
        attempt: i32,
    },
    /// An attempt failed for good.
    PaymentDeclined {
        attempt: i32,
        /// Why, such as `card_declined`.
        code: String,
    },
    PaymentRefunded,
    Pay {
        buyer: UserId,
        request: PayRequest,
        /// Token of the card or wallet.
        method: String,
    },
    /// The buyer or an operator cancels.
    Cancel {
        /// The only user whose orders the caller may cancel; `None` for everybody's.
        owner: Option<UserId>,
        by: UserId,
        /// The caller's idempotency key.
        request: RequestId,
    },
    /// An operator refunds.
    Refund {
        operator: UserId,
        /// The caller's idempotency key.
        request: RequestId,
    },
    /// The event was cancelled.
    EventCancelled {
        /// Whether orders that are paid are refunded.
        refund_paid: bool,
    },
    /// The payment deadline may have passed.
    DeadlinePassed,
    /// The answer of another service may be overdue.
    AskAgain,
}

impl Input {
    /// Returns the name for logs and metrics, without the data: that may be a payment method.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StockCommitted { .. } => "stock_committed",
            Self::StockRejected => "stock_rejected",
            Self::PaymentApproved { .. } | Self::PaymentApprovedAfterCancel { .. } => "payment_approved",
            Self::PaymentDeclined { .. } => "payment_declined",
            Self::PaymentRefunded => "payment_refunded",
            Self::Pay { .. } => "pay",
            Self::Cancel { .. } => "cancel",
            Self::Refund { .. } => "refund",
            Self::EventCancelled { .. } => "event_cancelled",
            Self::DeadlinePassed => "deadline_passed",
            Self::AskAgain => "ask_again",
        }
    }

    /// Returns the input to apply instead if the event is cancelled; `None` to apply this one.
    pub const fn for_cancelled_event(&self) -> Option<Self> {
        match self {
            Self::PaymentApproved { attempt } => Some(Self::PaymentApprovedAfterCancel { attempt: *attempt }),
            _ => None,
        }
    }
}

/// Upper bound of the back-off between two requests for the same answer, without jitter.
pub const MAX_ASK_BACKOFF: Duration = Duration::from_secs(3_600);
/// Requests after which another one is unlikely to help: the first may be a dead letter, and each further one is then
/// parked behind it.
pub const MANY_ASKS: i32 = 16;
/// Back-off from then on, without jitter.
pub const LAST_ASK_BACKOFF: Duration = Duration::from_secs(86_400);

/// Declines without a pause before the next payment: more than a buyer who mistypes needs.
const FREE_DECLINES: i32 = 3;
/// Longest pause between two payments of an order.
const MAX_PAY_PAUSE: Duration = Duration::from_secs(60);

/// The time limits and back-off of payments, and of answers of other services.
#[derive(Debug, Clone, Copy)]
pub struct PaymentPolicy {
    /// Most payments of one order.
    pub max_attempts: i32,
    /// Pause after the third decline, before the next payment; it doubles with each further one.
    pub pay_pause: Duration,
    /// Time to pay, from when the units are committed.
    pub pay_window: Duration,
    /// Time after the deadline in which a payment under way may still succeed.
    pub paying_grace: Duration,
    /// Back-off before an answer is requested again; it doubles each time.
    pub ask_backoff: Duration,
}

impl PaymentPolicy {
    /// Returns the pause after so many declines. It throttles the testing of stolen cards.
    fn pause_after(&self, declines: i32) -> Duration {
        match u32::try_from(declines - FREE_DECLINES) {
            Ok(further) => self.pay_pause.saturating_mul(2_u32.saturating_pow(further)).min(MAX_PAY_PAUSE),
            Err(_) => Duration::ZERO,
        }
    }

    /// Returns the back-off before this order requests its answer again, with up to a quarter of jitter from its id, so
    /// that the requests after an outage are spread.
    fn ask_backoff_of(&self, order: &Order) -> Duration {
        let doubled = match order.asks {
            MANY_ASKS.. => LAST_ASK_BACKOFF,
            asks => self.ask_backoff.saturating_mul(1_u32 << asks.clamp(0, MANY_ASKS)).min(MAX_ASK_BACKOFF),
        };
        let jitter = u32::from(order.id.as_bytes()[15]);
        doubled.saturating_add((doubled / 1_024).saturating_mul(jitter))
    }

    /// Returns an upper bound of the back-off before the first repeat of a request, with its jitter.
    pub fn longest_first_ask_backoff(&self) -> Duration {
        self.ask_backoff.saturating_add(self.ask_backoff / 4)
    }
}

/// One transition of an order, with everything that it changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub from: StateName,
    pub to: State,
    /// The payment deadline that it sets; `None` to keep the old one.
    pub pay_deadline: Option<Timestamp>,
    /// The payment request that it starts, with its number.
    pub pay_request: Option<(i32, PayRequest)>,
    pub end_request: Option<EndRequest>,
    /// The decline reason of the attempt that it ends.
    pub decline: Option<String>,
    /// How often its answer was requested again, after it.
    pub asks: i32,
    /// The items whose committed gifts differ from the reserved ones.
    pub gifts: Vec<(ItemId, i32)>,
    /// The message to publish.
    pub body: Option<MessageBody>,
}

impl Step {
    fn with_gifts(self, gifts: Vec<(ItemId, i32)>) -> Self {
        Self { gifts, ..self }
    }

    fn publishing(self, body: MessageBody) -> Self {
        Self { body: Some(body), ..self }
    }

    fn requested_by(self, request: EndRequest) -> Self {
        Self { end_request: Some(request), ..self }
    }

    /// Returns when the goods are granted, if this transition grants them.
    pub const fn fulfill_time(&self) -> Option<Timestamp> {
        if let State::Fulfilled { at, .. } = self.to { Some(at) } else { None }
    }
}

/// Why an input causes no transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStep {
    /// It is a repeat: the order is in the requested state.
    AlreadyApplied,
    /// It does not apply in this state.
    Ignored,
    Refused(CommandRefusal),
}

impl Order {
    /// Applies `input` at `now` and returns the transition, if there is one; the version then grows by one.
    pub fn apply(&mut self, input: &Input, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        let step = self.step(input, now, policy)?;
        self.apply_step(&step, now);
        Ok(step)
    }

    fn step(&self, input: &Input, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        match input {
            Input::StockCommitted { gifts } => self.stock_committed(gifts, now, policy),
            Input::StockRejected => self.stock_rejected(),
            Input::PaymentApproved { attempt } => self.payment_approved(*attempt, now),
            Input::PaymentApprovedAfterCancel { attempt } => self.payment_approved_after_cancel(*attempt, now),
            Input::PaymentDeclined { attempt, code } => self.payment_declined(*attempt, code),
            Input::PaymentRefunded => self.payment_refunded(),
            Input::Pay { buyer, request, method } => self.owned_by(*buyer)?.pay(request, method, now, policy),
            Input::Cancel { owner, by, request } => {
                let order = owner.map_or(Ok(self), |owner| self.owned_by(owner))?;
                order.cancel(EndRequest { verb: EndVerb::Cancel, by: *by, id: request.clone() })
            }
            Input::Refund { operator, request } => {
                self.refund(EndRequest { verb: EndVerb::Refund, by: *operator, id: request.clone() })
            }
            Input::EventCancelled { refund_paid } => self.end_with_event(*refund_paid),
            Input::DeadlinePassed => self.expire(now, policy),
            Input::AskAgain => self.ask_again(now, policy),
        }
    }

    fn apply_step(&mut self, step: &Step, now: Timestamp) {
        self.version += 1;
        self.updated_at = now;
        self.pay_requests.extend(step.pay_request.iter().map(|(_, request)| request.clone()));
        if step.end_request.is_some() {
            self.end_request.clone_from(&step.end_request);
        }
        if step.decline.is_some() {
            self.last_decline.clone_from(&step.decline);
        }
        for &(item, gift_units) in &step.gifts {
            for line in self.lines.iter_mut().filter(|line| line.item == item) {
                line.gift_units = gift_units;
            }
        }
        self.asks = step.asks;
        self.state = step.to.clone();
    }

    fn to(&self, to: State) -> Step {
        Step {
            from: self.state.name(),
            to,
            pay_deadline: None,
            pay_request: None,
            end_request: None,
            decline: None,
            asks: 0,
            gifts: Vec::new(),
            body: None,
        }
    }

    fn stock_committed(&self, gifts: &[(ItemId, i32)], now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        let step = match self.state {
            State::Pending => {
                let pay_deadline = now.plus(policy.pay_window);
                Step { pay_deadline: Some(pay_deadline), ..self.to(State::AwaitingPayment { pay_deadline }) }
            }
            State::Paid { pay_deadline } => self.fulfil(pay_deadline, now),
            _ => return Err(NoStep::Ignored),
        };
        let differs = |&(item, units): &(ItemId, i32)| {
            self.lines.iter().any(|line| line.item == item && line.gift_units != units)
        };
        Ok(step.with_gifts(gifts.iter().copied().filter(differs).collect()))
    }

    fn stock_rejected(&self) -> Result<Step, NoStep> {
        match self.state {
            State::Pending => Ok(self
                .to(State::Cancelled { pay_deadline: None })
                .publishing(MessageBody::Cancelled { coupon: self.coupon })),
            State::Paid { .. } => Ok(self.request_refund()),
            _ => Err(NoStep::Ignored),
        }
    }

    /// Fulfils an order that is being paid. An order without units has its units committed again, or its money
    /// refunded, whichever attempt was captured.
    ///
    /// An expired order with a coupon is refunded at once: the coupon has been returned and may be in use for another
    /// order, so the total is no longer valid.
    fn payment_approved(&self, attempt: i32, now: Timestamp) -> Result<Step, NoStep> {
        match self.state {
            State::Paying { pay_deadline } if attempt == self.attempts() => Ok(self.fulfil(pay_deadline, now)),
            State::Expired { pay_deadline } if self.coupon.is_none() => {
                Ok(self.to(State::Paid { pay_deadline }).publishing(self.paid_late()))
            }
            State::Expired { .. } | State::Cancelled { .. } => Ok(self.request_refund()),
            _ => Err(NoStep::Ignored),
        }
    }

    /// Refunds an expired order: the event sells nothing any more, so the units are not committed again.
    fn payment_approved_after_cancel(&self, attempt: i32, now: Timestamp) -> Result<Step, NoStep> {
        match self.state {
            State::Expired { .. } => Ok(self.request_refund()),
            _ => self.payment_approved(attempt, now),
        }
    }

    fn payment_declined(&self, attempt: i32, code: &str) -> Result<Step, NoStep> {
        match self.state {
            State::Paying { pay_deadline } if attempt == self.attempts() => {
                Ok(Step { decline: Some(code.to_owned()), ..self.to(State::AwaitingPayment { pay_deadline }) })
            }
            _ => Err(NoStep::Ignored),
        }
    }

    /// Returns the coupon only if it was used. An order that was refunded without being fulfilled returned its coupon
    /// when it expired.
    ///
    /// A paid order that has not requested a refund was refunded by hand at the provider, and an operator has decided
    /// that its goods come back.
    fn payment_refunded(&self) -> Result<Step, NoStep> {
        match self.state {
            State::Refunding(_) | State::Fulfilled { .. } | State::Paid { .. } => {
                let refund_origin = self.refund_origin();
                let coupon = self.coupon.filter(|_| refund_origin.fulfill_time.is_some());
                Ok(self.to(State::Refunded(refund_origin)).publishing(MessageBody::Refunded { coupon }))
            }
            _ => Err(NoStep::Ignored),
        }
    }

    fn pay(&self, request: &PayRequest, method: &str, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        if let Some(earlier) = self.pay_requests.iter().find(|earlier| earlier.id == request.id) {
            let is_repeat = earlier.fingerprint == request.fingerprint;
            return Err(if is_repeat {
                NoStep::AlreadyApplied
            } else {
                NoStep::Refused(CommandRefusal::RequestIdReused)
            });
        }
        match self.state {
            State::AwaitingPayment { pay_deadline } if now < pay_deadline => {
                self.ensure_payment_allowed(now, policy).map_err(NoStep::Refused)?;
                Ok(self.start_payment(pay_deadline, request, method))
            }
            State::AwaitingPayment { .. } | State::Expired { .. } => {
                Err(NoStep::Refused(CommandRefusal::PaymentDeadlinePassed))
            }
            _ => Err(NoStep::Refused(CommandRefusal::NotPayable(self.state.name()))),
        }
    }

    /// Fails if the order has had the most payments, or the last decline is too recent. An order that awaits payment
    /// after a decline was last updated by that decline.
    fn ensure_payment_allowed(&self, now: Timestamp, policy: &PaymentPolicy) -> Result<(), CommandRefusal> {
        let attempts = self.attempts();
        if attempts >= policy.max_attempts {
            return Err(CommandRefusal::TooManyAttempts { attempts, wait: None });
        }
        let wait = self.updated_at.plus(policy.pause_after(attempts)).since(now);
        if wait > Duration::ZERO {
            return Err(CommandRefusal::TooManyAttempts { attempts, wait: Some(wait) });
        }
        Ok(())
    }

    fn start_payment(&self, pay_deadline: Timestamp, request: &PayRequest, method: &str) -> Step {
        let attempt = self.attempts() + 1;
        let body = MessageBody::PaymentRequested {
            buyer: self.buyer,
            attempt,
            amount: self.prices.total,
            method: method.to_owned(),
        };
        let paying = self.to(State::Paying { pay_deadline }).publishing(body);
        Step { pay_request: Some((attempt, request.clone())), ..paying }
    }

    fn cancel(&self, request: EndRequest) -> Result<Step, NoStep> {
        match self.state {
            _ if self.was_ended_by(&request) => Err(NoStep::AlreadyApplied),
            State::Pending | State::AwaitingPayment { .. } => Ok(self.end_cancelled().requested_by(request)),
            _ => Err(NoStep::Refused(CommandRefusal::NotCancellable(self.state.name()))),
        }
    }

    fn refund(&self, request: EndRequest) -> Result<Step, NoStep> {
        match self.state {
            _ if self.was_ended_by(&request) => Err(NoStep::AlreadyApplied),
            State::Fulfilled { .. } => Ok(self.request_refund().requested_by(request)),
            _ => Err(NoStep::Refused(CommandRefusal::NotRefundable(self.state.name()))),
        }
    }

    /// Cancels an unpaid order, and refunds a paid one if `refund_paid`. Ignores an order that is being paid: this
    /// input is applied again after the outcome.
    fn end_with_event(&self, refund_paid: bool) -> Result<Step, NoStep> {
        match self.state {
            State::Pending | State::AwaitingPayment { .. } => Ok(self.end_cancelled()),
            State::Fulfilled { .. } if refund_paid => Ok(self.request_refund()),
            _ => Err(NoStep::Ignored),
        }
    }

    fn expire(&self, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        match self.state {
            State::AwaitingPayment { pay_deadline } if pay_deadline <= now => Ok(self.end_expired(pay_deadline)),
            State::Paying { pay_deadline } if pay_deadline.plus(policy.paying_grace) <= now => {
                Ok(self.end_expired(pay_deadline))
            }
            _ => Err(NoStep::Ignored),
        }
    }

    /// Publishes again the message whose answer the order waits for. Its consumer is idempotent and answers again. A
    /// PAYING order ends by its deadline instead: the payment method is not stored.
    fn ask_again(&self, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        let body = match self.state {
            State::Paid { .. } => self.paid_late(),
            State::Refunding(_) => self.refund_requested(),
            _ => return Err(NoStep::Ignored),
        };
        if now < self.updated_at.plus(policy.ask_backoff_of(self)) {
            return Err(NoStep::Ignored);
        }
        Ok(Step { asks: self.asks.saturating_add(1), ..self.to(self.state.clone()) }.publishing(body))
    }

    fn owned_by(&self, user: UserId) -> Result<&Self, NoStep> {
        if self.buyer == user { Ok(self) } else { Err(NoStep::Refused(CommandRefusal::NotFound)) }
    }

    fn fulfil(&self, pay_deadline: Timestamp, at: Timestamp) -> Step {
        let body = MessageBody::Fulfilled { buyer: self.buyer, coupon: self.coupon, at };
        self.to(State::Fulfilled { pay_deadline, at }).publishing(body)
    }

    fn end_expired(&self, pay_deadline: Timestamp) -> Step {
        self.to(State::Expired { pay_deadline }).publishing(MessageBody::Expired { coupon: self.coupon })
    }

    fn end_cancelled(&self) -> Step {
        self.to(State::Cancelled { pay_deadline: self.state.pay_deadline() })
            .publishing(MessageBody::Cancelled { coupon: self.coupon })
    }

    fn request_refund(&self) -> Step {
        self.to(State::Refunding(self.refund_origin())).publishing(self.refund_requested())
    }

    const fn refund_origin(&self) -> RefundOrigin {
        RefundOrigin { pay_deadline: self.state.pay_deadline(), fulfill_time: self.state.fulfill_time() }
    }

    fn paid_late(&self) -> MessageBody {
        MessageBody::PaidLate { buyer: self.buyer, event: self.event, lines: self.lines.clone() }
    }

    fn refund_requested(&self) -> MessageBody {
        MessageBody::RefundRequested { amount: self.prices.total }
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
