//! The decisions of operators on anomalies. None of them approves a charge: only the provider's own answer does.

use std::str::FromStr;

/// A decision on an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the provider again.
    Retry,
    /// The buyer has not paid by this charge, or has the money back already: the attempt is declined.
    Declined,
    /// The buyer has the whole amount back: the refund is done. If this service had requested none, the goods come back
    /// too.
    Refunded,
    /// Change nothing.
    Noted,
}

/// Why a text is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no decision on an anomaly")]
pub struct ParseVerdictError(String);

impl FromStr for Verdict {
    type Err = ParseVerdictError;

    fn from_str(text: &str) -> Result<Self, ParseVerdictError> {
        match text {
            "RETRY" => Ok(Self::Retry),
            "DECLINED" => Ok(Self::Declined),
            "REFUNDED" => Ok(Self::Refunded),
            "NOTED" => Ok(Self::Noted),
            other => Err(ParseVerdictError(other.to_owned())),
        }
    }
}
