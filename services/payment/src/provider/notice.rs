//! The notices (webhooks) of the provider: signed JSON texts.

use crate::{
    domain::{AttemptKey, Outcome, RefundKey, RefundOutcome},
    provider::{ChargeStatus, bounded_id, money, outcome},
};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

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
    /// The signature is wrong.
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
pub fn read_notice(secret: &[u8], payload: &str, signature: &str) -> Result<Notice, NoticeError> {
    verify(secret, payload, signature)?;
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
    bounded_id(id).ok_or_else(|| unreadable("the id is too long"))
}

/// Compares in constant time, so that a signature cannot be guessed byte by byte.
fn verify(secret: &[u8], payload: &str, signature: &str) -> Result<(), NoticeError> {
    let signature = hex(signature).ok_or(NoticeError::BadSignature)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(payload.as_bytes());
    mac.verify_slice(&signature).map_err(|_| NoticeError::BadSignature)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.bytes().map(digit).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, NoticeError> {
    serde_json::from_str(payload).map_err(unreadable)
}

fn unreadable(error: impl ToString) -> NoticeError {
    NoticeError::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::PaymentId;
    use uuid::Uuid;

    const SECRET: &[u8] = b"a secret between merchant and provider";

    fn key() -> AttemptKey {
        AttemptKey { payment_id: PaymentId::from_uuid(Uuid::from_u128(42)), attempt: 1 }
    }

    fn captured(key: &str) -> String {
        format!(
            r#"{{"type":"charge.captured","key":"{key}","charge_id":"ch_1","amount_minor":500,"currency":"EUR","status":"captured","new":1}}"#
        )
    }

    fn sign(payload: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
        mac.update(payload.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_signature_is_the_well_known_one() {
        // RFC 4231, test case 2.
        let signature = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(verify(b"Jefe", "what do ya want for nothing?", signature), Ok(()));
    }

    #[test]
    fn a_signed_notice_is_read() {
        let payload = captured(&key().to_string());
        let notice = read_notice(SECRET, &payload, &sign(&payload)).unwrap();
        let amount = money(500, "EUR").unwrap();
        assert_eq!(notice, Notice::Charge(key(), Outcome::Captured { charge_id: Some("ch_1".to_owned()), amount }));

        let payload = format!(r#"{{"type":"refund.succeeded","key":"{}:refund","refund_id":"re_1"}}"#, key());
        let refunded = RefundOutcome::Refunded { refund_id: Some("re_1".to_owned()) };
        assert_eq!(read_notice(SECRET, &payload, &sign(&payload)), Ok(Notice::Refund(RefundKey(key()), refunded)));

        let payload = r#"{"type":"payout.paid"}"#;
        assert_eq!(read_notice(SECRET, payload, &sign(payload)), Ok(Notice::Other));
    }

    #[test]
    fn any_other_signature_is_refused_before_the_payload_is_read() {
        let payload = captured(&key().to_string());
        let good = sign(&payload);
        let upper = good.to_uppercase();
        for bad in ["", "00", "zz", &good[1..], &good[2..], upper.as_str(), sign("{}").as_str()] {
            assert_eq!(read_notice(SECRET, &payload, bad), Err(NoticeError::BadSignature), "{bad}");
        }
        assert_eq!(read_notice(SECRET, "not JSON", &good), Err(NoticeError::BadSignature));
    }

    #[test]
    fn a_signed_notice_that_makes_no_sense_is_unreadable() {
        let too_long = "x".repeat(256);
        let charge = captured(&key().to_string()).replace("ch_1", &too_long);
        let refund = format!(r#"{{"type":"refund.succeeded","key":"{}:refund","refund_id":"{too_long}"}}"#, key());
        for payload in ["not JSON".to_owned(), "{}".to_owned(), captured("somebody else's"), charge, refund] {
            let notice = read_notice(SECRET, &payload, &sign(&payload));
            assert!(matches!(notice, Err(NoticeError::Unreadable(_))), "{payload}");
        }
        let longest = captured(&key().to_string()).replace("ch_1", &"ä".repeat(255));
        assert!(read_notice(SECRET, &longest, &sign(&longest)).is_ok());
    }
}
