//! The answers to requests that are refused, all in one JSON format: `{"error": {"code", "message"}}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

/// The reason for which a request was not granted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the header Idempotency-Key is required: 1 to 255 visible ASCII characters")]
    MissingKey,
    /// The body or the query cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// A value is not acceptable.
    #[error("{0}")]
    Invalid(String),
    #[error("the payment method is none of this sandbox")]
    UnknownPaymentMethod,
    /// The key was used with another body.
    #[error("the idempotency key was used before with another body")]
    KeyReused,
    #[error("there is no such charge")]
    ChargeNotFound,
    #[error("there is no such refund")]
    RefundNotFound,
    /// The refund would give back more than was captured.
    #[error("{wanted_minor} is more than the {refundable_minor} that may still be refunded")]
    RefundTooLarge {
        /// The requested amount.
        wanted_minor: i64,
        /// The amount that can still be refunded.
        refundable_minor: i64,
    },
    /// The request was lost on its way, as the payment method pm_card_timeout_lost simulates.
    #[error("the request was lost")]
    Lost,
    /// A failure of the provider, as the seeded mode simulates.
    #[error("the provider failed; repeat under the same key")]
    Broken,
    /// More requests than the sandbox accepts at once.
    #[error("too many requests at once; repeat under the same key")]
    Busy,
    #[error("the journal cannot be written; repeat under the same key")]
    JournalFailed,
}

impl Failure {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Failure::MissingKey => (StatusCode::BAD_REQUEST, "idempotency_key_required"),
            Failure::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed_request"),
            Failure::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value"),
            Failure::UnknownPaymentMethod => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_payment_method"),
            Failure::KeyReused => (StatusCode::CONFLICT, "idempotency_key_reused"),
            Failure::ChargeNotFound => (StatusCode::NOT_FOUND, "charge_not_found"),
            Failure::RefundNotFound => (StatusCode::NOT_FOUND, "refund_not_found"),
            Failure::RefundTooLarge { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refund_exceeds_capture"),
            Failure::Lost => (StatusCode::GATEWAY_TIMEOUT, "request_lost"),
            Failure::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too_busy"),
            Failure::JournalFailed => (StatusCode::INTERNAL_SERVER_ERROR, "book_closed"),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let body = json!({"error": {"code": code, "message": self.to_string()}});
        (status, Json(body)).into_response()
    }
}
