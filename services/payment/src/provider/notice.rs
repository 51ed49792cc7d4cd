//! The notices (webhooks) of the provider: signed JSON texts. Fields are bounded by their columns.

use crate::{
    domain::{AttemptKey, Outcome, RefundKey},
    provider::{ChargeStatus, WebhookSecrets, bounded_id, is_plain, money, outcome},
};
use serde::Deserialize;
use stampede_vocab::Timestamp;

const MAX_NOTICE_BYTES: usize = 64 * 1024;

/// The content of a notice. It is a hint: its charge or refund is looked up, and that answer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A charge has ended with this outcome.
    Charge(AttemptKey, Outcome),
    /// A refund of this service has changed.
    Refund {
        key: RefundKey,
        /// Whether it has failed, which a refund that was done may too.
        has_failed: bool,
    },
    /// A charge was refunded by others.
    ForeignRefund {
        /// The provider's id of the charge.
        charge_id: String,
    },
    /// A change that this service ignores.
    Other,
}

/// Why a notice is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// The signature is wrong, or too old.
    #[error("the signature does not fit the payload")]
    BadSignature,
    #[error("{0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct ChargeNotice {
    key: Option<String>,
    charge_id: String,
    amount_minor: i64,
    currency: String,
    status: ChargeStatus,
    decline_code: Option<String>,
}

#[derive(Deserialize)]
struct RefundNotice {
    key: Option<String>,
    charge_id: Option<String>,
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
        "refund.succeeded" | "refund.pending" | "charge.refunded" => refund_notice(payload, false),
        "refund.failed" => refund_notice(payload, true),
        _ => Ok(Notice::Other),
    }
}

fn charge_notice(payload: &str) -> Result<Notice, NoticeError> {
    let notice: ChargeNotice = parse(payload)?;
    let amount = money(notice.amount_minor, &notice.currency);
    let outcome = outcome(&notice.status, readable_id(notice.charge_id)?, amount, notice.decline_code);
    // The account may be shared with other shops. If their notices were refused, the provider would retry them.
    let key = notice.key.and_then(|key| key.parse().ok());
    Ok(key.map_or(Notice::Other, |key| Notice::Charge(key, outcome)))
}

fn refund_notice(payload: &str, has_failed: bool) -> Result<Notice, NoticeError> {
    let notice: RefundNotice = parse(payload)?;
    if let Some(key) = notice.key.and_then(|key| key.parse().ok()) {
        return Ok(Notice::Refund { key, has_failed });
    }
    let charge_id = notice.charge_id.ok_or_else(|| unreadable("it names neither a refund nor a charge of ours"))?;
    if !is_plain(&charge_id) {
        return Err(unreadable("the id of its charge has odd characters"));
    }
    Ok(Notice::ForeignRefund { charge_id: readable_id(charge_id)? })
}

fn readable_id(id: String) -> Result<String, NoticeError> {
    bounded_id(id).ok_or_else(|| unreadable("an id is not 1 to 255 visible ASCII characters"))
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, NoticeError> {
    // The message of serde would quote the value.
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

        for (kind, has_failed) in [("refund.succeeded", false), ("refund.failed", true)] {
            let payload = format!(r#"{{"type":"{kind}","key":"{}:refund","refund_id":"re_1"}}"#, key());
            let notice = Notice::Refund { key: RefundKey(key()), has_failed };
            assert_eq!(read(&payload, &sign(&payload)), Ok(notice));
        }

        let foreign = Ok(Notice::ForeignRefund { charge_id: "ch_1".to_owned() });
        for payload in [
            r#"{"type":"refund.succeeded","key":"by-hand","charge_id":"ch_1"}"#,
            r#"{"type":"charge.refunded","charge_id":"ch_1"}"#,
        ] {
            assert_eq!(read(payload, &sign(payload)), foreign);
        }

        // The content is not believed, so an invalid currency is no reason not to look the charge up.
        let payload = captured(&key().to_string()).replace("EUR", "GOLD");
        let notice = read(&payload, &sign(&payload)).unwrap();
        assert!(matches!(notice, Notice::Charge(of, Outcome::InDoubt(_)) if of == key()), "{notice:?}");

        let without_key = captured("x").replace(r#""key":"x","#, "");
        for payload in [r#"{"type":"payout.paid"}"#, captured("of another shop").as_str(), without_key.as_str()] {
            assert_eq!(read(payload, &sign(payload)), Ok(Notice::Other), "{payload}");
        }
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
        let refunds = ["", "a/b", "..", too_long.as_str()]
            .map(|id| format!(r#"{{"type":"refund.succeeded","key":"by-hand","charge_id":"{id}"}}"#));
        let odd_ids = ["", "a b", "\u{1f389}", "\\u0000"].map(|id| captured(&key().to_string()).replace("ch_1", id));
        let nested = format!(r#"{{"type":"charge.captured","x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
        let huge = format!(r#"{{"type":"payout.paid","x":"{}"}}"#, "x".repeat(MAX_NOTICE_BYTES));
        let malformed = ["not JSON".to_owned(), "{}".to_owned(), charge, nested, huge];
        for payload in malformed.into_iter().chain(refunds).chain(odd_ids) {
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
