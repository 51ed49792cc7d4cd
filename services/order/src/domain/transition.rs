//! The state machine: what each input makes of an order in each state.
//!
//! An input that means nothing in a state is ignored, never an error: messages come from services that do not know
//! what has happened here since. A buyer's or operator's verb is refused instead, naming the state.

use super::{CommandRefusal, EndRequest, EndVerb, MessageBody, Order, PayRequest, RefundOrigin, State, StateName};
use stampede_vocab::{ItemId, RequestId, Timestamp, UserId};
use std::time::Duration;

/// What may happen to an order.
#[derive(Clone)]
pub enum Input {
    /// The ledger has committed all its units: those of an order that was paid late, or placed by an earlier release.
    StockCommitted {
        /// The gifts that it has committed with the units of each item; fewer than were promised if one was gone. An
        /// item that is left out keeps what was promised.
        gifts: Vec<(ItemId, i32)>,
    },
    /// The ledger has committed nothing.
    StockRejected,
    /// The money was captured.
    PaymentApproved {
        /// Attempt that succeeded.
        attempt: i32,
    },
    /// An attempt failed for good.
    PaymentDeclined {
        /// Attempt that failed.
        attempt: i32,
        /// Why, such as `card_declined`.
        code: String,
    },
    /// The money is back with the buyer.
    PaymentRefunded,
    /// The buyer pays.
    Pay {
        /// Who asks.
        buyer: UserId,
        /// Their name for the request, and what it asks for.
        request: PayRequest,
        /// Token of the card or wallet.
        method: String,
    },
    /// The buyer cancels.
    Cancel {
        /// Who asks.
        buyer: UserId,
        /// Their name for the request.
        request: RequestId,
    },
    /// An operator refunds.
    Refund {
        /// Who asks.
        operator: UserId,
        /// Their name for the request.
        request: RequestId,
    },
    /// Its time to be paid may be over.
    DeadlinePassed,
}

impl Input {
    /// Name for logs and metrics; never the data, among which are payment methods.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StockCommitted { .. } => "stock_committed",
            Self::StockRejected => "stock_rejected",
            Self::PaymentApproved { .. } => "payment_approved",
            Self::PaymentDeclined { .. } => "payment_declined",
            Self::PaymentRefunded => "payment_refunded",
            Self::Pay { .. } => "pay",
            Self::Cancel { .. } => "cancel",
            Self::Refund { .. } => "refund",
            Self::DeadlinePassed => "deadline_passed",
        }
    }
}

/// How long orders may take to be paid.
#[derive(Debug, Clone, Copy)]
pub struct PaymentPolicy {
    /// Time to pay, from when the units are committed.
    pub pay_window: Duration,
    /// Time after the deadline in which a payment under way may still succeed.
    pub paying_grace: Duration,
}

/// A step of an order: all that it changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The state that it leads out of.
    pub from: StateName,
    /// The state that it leads to.
    pub to: State,
    /// The time to be paid that it sets.
    pub pay_by: Option<Timestamp>,
    /// The payment that it starts, with its number.
    pub pay_request: Option<(i32, PayRequest)>,
    /// The request by which a person ends the order.
    pub end_request: Option<EndRequest>,
    /// Why the attempt that it ends was declined.
    pub decline: Option<String>,
    /// Gifts of the items that come with others than were promised.
    pub gifts: Vec<(ItemId, i32)>,
    /// What is to be told about it.
    pub body: Option<MessageBody>,
}

impl Step {
    fn with_gifts(self, gifts: Vec<(ItemId, i32)>) -> Self {
        Self { gifts, ..self }
    }

    fn publishing(self, body: MessageBody) -> Self {
        Self { body: Some(body), ..self }
    }

    fn asked(self, request: EndRequest) -> Self {
        Self { end_request: Some(request), ..self }
    }

    /// When it grants the goods, if it does.
    pub const fn fulfilled_at(&self) -> Option<Timestamp> {
        if let State::Fulfilled { at, .. } = self.to { Some(at) } else { None }
    }
}

/// Why there is no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoStep {
    /// A repeat: the order is as the caller wants it.
    AlreadyApplied,
    /// The input means nothing in this state.
    Ignored,
    /// The verb is not obeyed.
    Refused(CommandRefusal),
}

impl Order {
    /// Lets `input` happen at `now`, and returns the step that the order has made; its version grows by one then.
    pub fn take(&mut self, input: &Input, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        let step = self.step(input, now, policy)?;
        self.make(&step, now);
        Ok(step)
    }

    fn step(&self, input: &Input, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        match input {
            Input::StockCommitted { gifts } => self.stock_committed(gifts, now, policy),
            Input::StockRejected => self.stock_rejected(),
            Input::PaymentApproved { attempt } => self.payment_approved(*attempt, now),
            Input::PaymentDeclined { attempt, code } => self.payment_declined(*attempt, code),
            Input::PaymentRefunded => self.payment_refunded(),
            Input::Pay { buyer, request, method } => self.owned_by(*buyer)?.pay(request, method, now),
            Input::Cancel { buyer, request } => {
                self.owned_by(*buyer)?.cancel(EndRequest { verb: EndVerb::Cancel, by: *buyer, id: request.clone() })
            }
            Input::Refund { operator, request } => {
                self.refund(EndRequest { verb: EndVerb::Refund, by: *operator, id: request.clone() })
            }
            Input::DeadlinePassed => self.expire(now, policy),
        }
    }

    fn make(&mut self, step: &Step, now: Timestamp) {
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
        if let Some(at) = step.fulfilled_at() {
            self.goods = self.grant(at);
        }
        self.state = step.to.clone();
    }

    fn to(&self, to: State) -> Step {
        let (from, gifts) = (self.state.name(), Vec::new());
        Step { from, to, pay_by: None, pay_request: None, end_request: None, decline: None, gifts, body: None }
    }

    fn stock_committed(&self, gifts: &[(ItemId, i32)], now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        let step = match self.state {
            State::Pending => {
                let pay_by = now.plus(policy.pay_window);
                Step { pay_by: Some(pay_by), ..self.to(State::AwaitingPayment { pay_by }) }
            }
            State::Paid { pay_by } => self.fulfil(pay_by, now),
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
                .to(State::Cancelled { pay_by: None })
                .publishing(MessageBody::Cancelled { coupon: self.coupon })),
            State::Paid { .. } => Ok(self.give_money_back()),
            _ => Err(NoStep::Ignored),
        }
    }

    /// Money that was captured for an order that no longer has its units leads to the units or to a refund, whichever
    /// attempt it was.
    ///
    /// An expired order with a coupon is refunded at once: the coupon is back with its owner and may be in use for
    /// another order, so this one can't be had at its total any more.
    fn payment_approved(&self, attempt: i32, now: Timestamp) -> Result<Step, NoStep> {
        match self.state {
            State::Paying { pay_by } if attempt == self.attempts() => Ok(self.fulfil(pay_by, now)),
            State::Expired { pay_by } if self.coupon.is_none() => Ok(self
                .to(State::Paid { pay_by })
                .publishing(MessageBody::PaidLate { buyer: self.buyer, event: self.event, lines: self.lines.clone() })),
            State::Expired { .. } | State::Cancelled { .. } => Ok(self.give_money_back()),
            _ => Err(NoStep::Ignored),
        }
    }

    fn payment_declined(&self, attempt: i32, code: &str) -> Result<Step, NoStep> {
        match self.state {
            State::Paying { pay_by } if attempt == self.attempts() => {
                Ok(Step { decline: Some(code.to_owned()), ..self.to(State::AwaitingPayment { pay_by }) })
            }
            _ => Err(NoStep::Ignored),
        }
    }

    /// The coupon returns only if it was used: an order refunded without ever having been fulfilled gave it back when
    /// it expired.
    fn payment_refunded(&self) -> Result<Step, NoStep> {
        match self.state {
            State::Refunding(refund_origin) => {
                let coupon = self.coupon.filter(|_| refund_origin.fulfilled_at.is_some());
                Ok(self.to(State::Refunded(refund_origin)).publishing(MessageBody::Refunded { coupon }))
            }
            _ => Err(NoStep::Ignored),
        }
    }

    fn pay(&self, request: &PayRequest, method: &str, now: Timestamp) -> Result<Step, NoStep> {
        if let Some(earlier) = self.pay_requests.iter().find(|earlier| earlier.id == request.id) {
            let is_repeat = earlier.fingerprint == request.fingerprint;
            return Err(if is_repeat {
                NoStep::AlreadyApplied
            } else {
                NoStep::Refused(CommandRefusal::RequestIdReused)
            });
        }
        match self.state {
            State::AwaitingPayment { pay_by } if now < pay_by => Ok(Step {
                pay_request: Some((self.attempts() + 1, request.clone())),
                ..self.to(State::Paying { pay_by }).publishing(MessageBody::PaymentRequested {
                    buyer: self.buyer,
                    attempt: self.attempts() + 1,
                    amount: self.prices.total,
                    method: method.to_owned(),
                })
            }),
            State::AwaitingPayment { .. } | State::Expired { .. } => {
                Err(NoStep::Refused(CommandRefusal::PaymentDeadlinePassed))
            }
            _ => Err(NoStep::Refused(CommandRefusal::NotPayable(self.state.name()))),
        }
    }

    fn cancel(&self, request: EndRequest) -> Result<Step, NoStep> {
        match self.state {
            _ if self.was_ended_by(&request) => Err(NoStep::AlreadyApplied),
            State::Pending | State::AwaitingPayment { .. } => Ok(self
                .to(State::Cancelled { pay_by: self.state.pay_by() })
                .publishing(MessageBody::Cancelled { coupon: self.coupon })
                .asked(request)),
            _ => Err(NoStep::Refused(CommandRefusal::NotCancellable(self.state.name()))),
        }
    }

    fn refund(&self, request: EndRequest) -> Result<Step, NoStep> {
        match self.state {
            _ if self.was_ended_by(&request) => Err(NoStep::AlreadyApplied),
            State::Fulfilled { .. } => Ok(self.give_money_back().asked(request)),
            _ => Err(NoStep::Refused(CommandRefusal::NotRefundable(self.state.name()))),
        }
    }

    fn expire(&self, now: Timestamp, policy: &PaymentPolicy) -> Result<Step, NoStep> {
        match self.state {
            State::AwaitingPayment { pay_by } if pay_by <= now => Ok(self.end_unpaid(pay_by)),
            State::Paying { pay_by } if pay_by.plus(policy.paying_grace) <= now => Ok(self.end_unpaid(pay_by)),
            _ => Err(NoStep::Ignored),
        }
    }

    fn owned_by(&self, user: UserId) -> Result<&Self, NoStep> {
        if self.buyer == user { Ok(self) } else { Err(NoStep::Refused(CommandRefusal::NotFound)) }
    }

    fn fulfil(&self, pay_by: Timestamp, at: Timestamp) -> Step {
        let body = MessageBody::Fulfilled { buyer: self.buyer, coupon: self.coupon, at };
        self.to(State::Fulfilled { pay_by, at }).publishing(body)
    }

    fn end_unpaid(&self, pay_by: Timestamp) -> Step {
        self.to(State::Expired { pay_by }).publishing(MessageBody::Expired { coupon: self.coupon })
    }

    fn give_money_back(&self) -> Step {
        let refund_origin = RefundOrigin { pay_by: self.state.pay_by(), fulfilled_at: self.state.fulfilled_at() };
        self.to(State::Refunding(refund_origin)).publishing(MessageBody::RefundRequested { amount: self.prices.total })
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
