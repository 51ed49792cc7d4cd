//! Payments as values: their attempts, their transitions, and the messages about them. No I/O, no clock.

mod attempt;
mod backoff;
mod doubt;
mod error;
mod key;
mod order_request;
mod outcome;
mod outgoing;
mod payment;
mod refund;
mod step;
#[cfg(test)]
mod tests;
mod verdict;

pub use attempt::{Attempt, AttemptState, ChargeRequest};
pub use doubt::Doubt;
pub use error::{Anomaly, Refusal, Subject};
pub use key::{AttemptKey, RefundKey};
pub use order_request::{Action, OrderRequest};
pub use outcome::{Outcome, RefundOutcome};
pub use outgoing::{MessageBody, OutgoingMessage};
pub use payment::{Payment, PaymentState, Settled};
pub use refund::{Refund, RefundSettled, RefundState};
pub use step::Step;
pub use verdict::Verdict;
