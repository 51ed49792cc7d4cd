//! Payments as values: what a payment and its attempts are, and how each answer changes them. No I/O, no clock.

mod attempt;
mod error;
mod key;
mod news;
mod outcome;
mod outgoing;
mod pause;
mod payment;
mod refund;
#[cfg(test)]
mod tests;

pub use attempt::{Attempt, AttemptState, ChargeOrder};
pub use error::{Failure, Refusal, Surprise};
pub use key::{AttemptKey, ParseKeyError, RefundKey};
pub use news::{Ask, OrderNews};
pub use outcome::{Outcome, RefundOutcome};
pub use outgoing::{Fact, Outgoing};
pub use payment::{Payment, PaymentState, Settled};
pub use refund::{Refund, RefundState};
