//! Converts between the contract and the domain. Validates requests field by field; errors name the first invalid
//! field.

use crate::domain::{Attempt, AttemptState, Payment, PaymentState};
use stampede_proto::{
    convert::{decline_code, timestamp},
    payment::v1 as proto,
};
use stampede_service::{Page, Paging};
use stampede_status::Problem;
use stampede_vocab::{OrderId, PaymentId, UserId, field};

/// Parses the id in the field `payment_id`.
pub fn payment_id(text: &str) -> Result<PaymentId, Problem> {
    Ok(field::id("payment_id", text)?)
}

/// Returns the order to list payments of, `None` for all, and the page. The owner and the order are part of the list's
/// name, so that a page token is good for no other.
pub fn listing(
    owner: Option<UserId>,
    request: &proto::ListPaymentsRequest,
) -> Result<(Option<OrderId>, Paging), Problem> {
    let order = field::optional_id("order_id", &request.order_id)?;
    let mut list = owner.map_or_else(|| "payments".to_owned(), |user| format!("payments-{user}"));
    if let Some(order) = order {
        list = format!("{list}-{order}");
    }
    Ok((order, Paging::parse(list, request.page_size, &request.page_token)?))
}

/// Converts a page to its contract form.
pub fn page(page: Page<Payment>) -> proto::ListPaymentsResponse {
    let Page { rows, next_page_token } = page;
    proto::ListPaymentsResponse { payments: rows.into_iter().map(payment).collect(), next_page_token }
}

/// Converts a payment to its contract form.
pub fn payment(payment: Payment) -> proto::Payment {
    proto::Payment {
        payment_id: payment.id.to_string(),
        order_id: payment.order_id.to_string(),
        user_id: payment.user_id.to_string(),
        state: payment_state(payment.state).into(),
        amount: Some(payment.amount.into()),
        captured: Some(payment.captured().into()),
        refunded: Some(payment.refunded().into()),
        create_time: Some(timestamp(payment.created_at)),
        update_time: Some(timestamp(payment.updated_at)),
        attempts: payment.attempts.into_iter().map(attempt).collect(),
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
    let (state, provider_code, charge_id) = match attempt.state {
        AttemptState::Requested => (Shown::Requested, None, None),
        AttemptState::Charging { .. } => (Shown::Charging, None, None),
        AttemptState::Unknown { .. } => (Shown::Unknown, None, None),
        AttemptState::Parked => (Shown::Parked, None, None),
        AttemptState::Approved { charge_id } => (Shown::Approved, None, charge_id),
        AttemptState::Declined { code } => (Shown::Declined, Some(code), None),
    };
    let provider_code = provider_code.unwrap_or_default();
    proto::Attempt {
        attempt: attempt.number,
        state: state.into(),
        decline_code: decline_code(&provider_code).into(),
        provider_code,
        provider_charge_id: charge_id.unwrap_or_default(),
        create_time: Some(timestamp(attempt.created_at)),
    }
}
