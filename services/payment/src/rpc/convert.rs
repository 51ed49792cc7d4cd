//! Between the contract and the domain: requests in, payments and problems out. Says which field is at fault.

use crate::{
    domain::{Attempt, AttemptState, Failure, Payment, PaymentState},
    usecase::{Page, Viewer},
    wire::{money, timestamp},
};
use stampede_chassis::{Identity, Role};
use stampede_proto::payment::v1 as proto;
use stampede_status::{Problem, Reason};
use stampede_vocab::{InvalidField, OrderId, PageToken, PaymentId, Timestamp};

/// What the caller may see.
pub(super) fn viewer(identity: &Identity) -> Result<Viewer, Problem> {
    match identity.role {
        Role::Operator | Role::Service => Ok(Viewer::Operator),
        Role::Buyer => {
            let user_id = identity.user_id.parse();
            user_id.map(Viewer::Buyer).map_err(|_| Problem::new(Reason::Unauthenticated, "the caller has no user id"))
        }
    }
}

/// The id in the field `payment_id`.
pub(super) fn payment_id(text: &str) -> Result<PaymentId, InvalidField> {
    text.parse().map_err(|error| InvalidField::new("payment_id", format!("{error}")))
}

/// The order whose payment is wanted; `None` for all.
pub(super) fn order_filter(text: &str) -> Result<Option<OrderId>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| InvalidField::new("order_id", format!("{error}")))
}

/// Names a list in its page tokens, so that a token is good for no other.
pub(super) fn list_name(viewer: Viewer, order: Option<OrderId>) -> String {
    let whose = match viewer {
        Viewer::Buyer(user) => format!("payments-{user}"),
        Viewer::Operator => "payments".to_owned(),
    };
    order.map_or_else(|| whose.clone(), |order| format!("{whose}-{order}"))
}

/// Where the page of this list starts.
pub(super) fn page_token(list: &str, token: &str) -> Result<Option<(Timestamp, PaymentId)>, Problem> {
    let token = PageToken::parse(list, token)
        .map_err(|error| Problem::new(Reason::InvalidPageToken, error.problem).field(error.field))?;
    Ok(token.map(|token| (Timestamp::from_micros(token.after), PaymentId::from_uuid(token.id))))
}

/// The answer of ListPayments: a page of this list.
pub(super) fn page(list: &str, page: Page) -> proto::ListPaymentsResponse {
    let last = page.payments.last().filter(|_| page.more);
    let next_page_token = last.map(|last| PageToken::new(list, last.created_at.micros(), last.id.uuid()).to_string());
    proto::ListPaymentsResponse {
        next_page_token: next_page_token.unwrap_or_default(),
        payments: page.payments.into_iter().map(payment).collect(),
    }
}

/// A payment as the contract shows it.
pub(super) fn payment(payment: Payment) -> proto::Payment {
    proto::Payment {
        payment_id: payment.id.to_string(),
        order_id: payment.order_id.to_string(),
        user_id: payment.user_id.to_string(),
        state: payment_state(payment.state).into(),
        amount: Some(money(payment.amount)),
        captured: Some(money(payment.captured())),
        refunded: Some(money(payment.refunded())),
        create_time: Some(timestamp(payment.created_at)),
        update_time: Some(timestamp(payment.updated_at)),
        attempts: payment.attempts.into_iter().map(attempt).collect(),
    }
}

/// What the caller is told of a field.
pub(super) fn invalid(error: InvalidField) -> Problem {
    Problem::invalid_field(error.field, error.problem)
}

/// What the caller is told of a failure.
pub(super) fn problem(failure: Failure) -> Problem {
    let detail = failure.to_string();
    match failure {
        Failure::Invalid(error) => invalid(error),
        Failure::NotFound => Problem::new(Reason::PaymentNotFound, detail).field("payment_id"),
        Failure::InvalidSignature => Problem::new(Reason::InvalidSignature, detail),
        Failure::Overloaded => Problem::new(Reason::Overloaded, detail),
        Failure::Unreachable(cause) => Problem::unavailable("the payment database", cause),
        Failure::Broken(cause) => Problem::internal_error(cause),
    }
}

fn payment_state(state: PaymentState) -> proto::PaymentState {
    match state {
        PaymentState::Open => proto::PaymentState::Open,
        PaymentState::Captured { .. } => proto::PaymentState::Captured,
        PaymentState::Refunding { .. } => proto::PaymentState::Refunding,
        PaymentState::Refunded { .. } => proto::PaymentState::Refunded,
    }
}

fn attempt(attempt: Attempt) -> proto::Attempt {
    use proto::AttemptState as Shown;
    let (state, decline_code, charge_id) = match attempt.state {
        AttemptState::Requested => (Shown::Requested, None, None),
        AttemptState::Charging { .. } => (Shown::Charging, None, None),
        AttemptState::Unknown { .. } => (Shown::Unknown, None, None),
        AttemptState::Approved { charge_id } => (Shown::Approved, None, charge_id),
        AttemptState::Declined { code } => (Shown::Declined, Some(code), None),
    };
    proto::Attempt {
        attempt: attempt.number,
        state: state.into(),
        decline_code: decline_code.unwrap_or_default(),
        provider_charge_id: charge_id.unwrap_or_default(),
        create_time: Some(timestamp(attempt.created_at)),
    }
}
