//! The notices (webhooks) of the provider: signed JSON texts. Nothing in them is longer than what is stored.

use crate::{
    domain::{AttemptKey, Outcome, RefundKey, RefundOutcome},
    provider::{ChargeStatus, WebhookSecrets, bounded_id, money, outcome},
};
use serde::Deserialize;
use stampede_vocab::Timestamp;

/// Longest notice that is read.
const MAX_NOTICE_BYTES: usize = 64 * 1024;

/// The content of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The outcome of a charge.
    Charge(AttemptKey, Outcome),
    /// The outcome of a refund.
    Refund(RefundKey, RefundOutcome),
    /// A change that this service ignores.
    Other,
}

/// Why a notice is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// The signature is wrong, or too old.
    #[error("the signature does not fit the payload")]
    BadSignature,
    /// The text is malformed.
    #[error("{0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct ChargeNotice {
    key: String,
    charge_id: String,
    amount_minor: i64,
    currency: String,
    status: ChargeStatus,
    decline_code: Option<String>,
}

#[derive(Deserialize)]
struct RefundNotice {
    key: String,
    refund_id: Option<String>,
}

/// Verifies the signature of a notice and parses it. Fails if the signature is wrong, or the notice is malformed.
pub fn read_notice(
    secrets: &WebhookSecrets,
    payload: &str,
    signature: &str,
    now: Timestamp,
) -> Result<Notice, NoticeError> {
    if payload.len() > MAX_NOTICE_BYTES {
        return Err(unreadable("it is too long"));
    }
    secrets.verify(payload, signature, now).map_err(|_| NoticeError::BadSignature)?;
    let Kind { r#type } = parse(payload)?;
    match r#type.as_str() {
        "charge.captured" | "charge.declined" => charge_notice(payload),
        "refund.succeeded" => {
            let notice: RefundNotice = parse(payload)?;
            let key = notice.key.parse().map_err(unreadable)?;
            let refund_id = notice.refund_id.map(readable_id).transpose()?;
            Ok(Notice::Refund(key, RefundOutcome::Refunded { refund_id }))
        }
        _ => Ok(Notice::Other),
    }
}

fn charge_notice(payload: &str) -> Result<Notice, NoticeError> {
    let notice: ChargeNotice = parse(payload)?;
    let amount = money(notice.amount_minor, &notice.currency);
    let outcome = outcome(&notice.status, readable_id(notice.charge_id)?, amount, notice.decline_code);
    let outcome = outcome.ok_or_else(|| unreadable("currency"))?;
    Ok(Notice::Charge(notice.key.parse().map_err(unreadable)?, outcome))
}

fn readable_id(id: String) -> Result<String, NoticeError> {
    bounded_id(id).ok_or_else(|| unreadable("an id is not 1 to 255 visible ASCII characters"))
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, NoticeError> {
    // What serde says of a value would repeat it.
    serde_json::from_str(payload).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        unreadable(format!("at line {line}, column {column}"))
    })
}

fn unreadable(error: impl ToString) -> NoticeError {
    NoticeError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::signature::tests::{SECRET, now, sign};
    use stampede_vocab::PaymentId;
    use uuid::Uuid;

    fn read(payload: &str, signature: &str) -> Result<Notice, NoticeError> {
        read_notice(&WebhookSecrets::new(SECRET, None), payload, signature, now())
    }

    fn key() -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(Uuid::from_u128(42)), attempt: 1 }
    }

    fn captured(key: &str) -> String {
        format!(
            r#"{{"type":"charge.captured","key":"{key}","charge_id":"ch_1","amount_minor":500,"currency":"EUR","status":"captured","new":1}}"#
        )
    }

    #[test]
    fn a_signed_notice_is_read() {
        let payload = captured(&key().to_string());
        let notice = read(&payload, &sign(&payload)).unwrap();
        let amount = money(500, "EUR").unwrap();
        assert_eq!(notice, Notice::Charge(key(), Outcome::Captured { charge_id: Some("ch_1".to_owned()), amount }));

        let payload = format!(r#"{{"type":"refund.succeeded","key":"{}:refund","refund_id":"re_1"}}"#, key());
        let refunded = RefundOutcome::Refunded { refund_id: Some("re_1".to_owned()) };
        assert_eq!(read(&payload, &sign(&payload)), Ok(Notice::Refund(RefundKey(key()), refunded)));

        let payload = r#"{"type":"payout.paid"}"#;
        assert_eq!(read(payload, &sign(payload)), Ok(Notice::Other));
    }

    #[test]
    fn any_other_signature_is_refused_before_the_payload_is_read() {
        let payload = captured(&key().to_string());
        let good = sign(&payload);
        for bad in ["", "t=1", &good[1..], sign("{}").as_str()] {
            assert_eq!(read(&payload, bad), Err(NoticeError::BadSignature), "{bad}");
        }
        assert_eq!(read("not JSON", &good), Err(NoticeError::BadSignature));
    }

    #[test]
    fn a_signed_notice_that_makes_no_sense_is_unreadable() {
        let too_long = "x".repeat(256);
        let charge = captured(&key().to_string()).replace("ch_1", &too_long);
        let refund = format!(r#"{{"type":"refund.succeeded","key":"{}:refund","refund_id":"{too_long}"}}"#, key());
        let odd_ids = ["", "a b", "\u{1f389}", "\\u0000"].map(|id| captured(&key().to_string()).replace("ch_1", id));
        let nested = format!(r#"{{"type":"charge.captured","x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        let huge = format!(r#"{{"type":"payout.paid","x":"{}"}}"#, "x".repeat(MAX_NOTICE_BYTES));
        let unknown = captured(&key().to_string()).replace("EUR", "ZZZ");
        let malformed = ["not JSON".to_owned(), "{}".to_owned(), captured("somebody else's"), charge, refund];
        for payload in malformed.into_iter().chain(odd_ids).chain([nested, huge, unknown]) {
            let notice = read(&payload, &sign(&payload));
            assert!(matches!(notice, Err(NoticeError::Unreadable(_))), "{payload}");
        }
        let number = captured(&key().to_string());
        for amount in ["\"500\"", "500.5", "9223372036854775808", "null", "[]"] {
            let payload = number.replace(":500,", &format!(":{amount},"));
            assert!(matches!(read(&payload, &sign(&payload)), Err(NoticeError::Unreadable(_))), "{payload}");
        }
        let longest = captured(&key().to_string()).replace("ch_1", &"x".repeat(255));
        assert!(read(&longest, &sign(&longest)).is_ok());
    }
}
