//! The idempotency keys of requests to the payment provider. A key is derived from its row, so a repeat after a crash
//! has the same key, and nothing is ever charged or refunded under two.

use stampede_vocab::PaymentId;
use std::{fmt, str::FromStr};

/// One attempt of one payment, and the key of its charge: `pay_...:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    pub payment_id: PaymentId,
    /// Number of the attempt, 1 for the first.
    pub attempt: i32,
}

/// The refund of one attempt's charge, and its key: `pay_...:1:refund`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefundKey(pub AttemptKey);

/// Why a text is not one of these keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a key of this shop")]
pub struct ParseKeyError;

const REFUND: &str = ":refund";

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.payment_id, self.attempt)
    }
}

impl FromStr for AttemptKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let (payment, attempt) = text.split_once(':').ok_or(ParseKeyError)?;
        let key = Self {
            payment_id: payment.parse().map_err(|_| ParseKeyError)?,
            attempt: attempt.parse().map_err(|_| ParseKeyError)?,
        };
        // Only the canonical form: not "+1" or "01".
        if key.attempt > 0 && key.to_string() == text { Ok(key) } else { Err(ParseKeyError) }
    }
}

impl fmt::Display for RefundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{REFUND}", self.0)
    }
}

impl FromStr for RefundKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        text.strip_suffix(REFUND).ok_or(ParseKeyError)?.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn keys_read_back_and_nothing_else_does() {
        let payment = PaymentId::from_uuid(Uuid::from_u128(1));
        let key = AttemptKey { payment_id: payment, attempt: 7 };
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(RefundKey(key).to_string().parse(), Ok(RefundKey(key)));
        for bad in [
            payment.to_string(),
            format!("{payment}:"),
            format!("{payment}:0"),
            format!("{payment}:+7"),
            format!("{payment}:07"),
            format!("{payment}:7:refund"),
            "x:7".to_owned(),
        ] {
            assert!(bad.parse::<AttemptKey>().is_err(), "{bad}");
        }
        assert!(key.to_string().parse::<RefundKey>().is_err());
    }
}
