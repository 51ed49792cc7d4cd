//! Answers of the provider that end nothing: they do not fit, or no better one will come. An operator has to look at
//! them.

/// Why an answer is not believed, or none is waited for any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The request is refused permanently.
    #[error("the provider refuses the request for good: {status} {code}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The provider's own code, if it gave one.
        code: String,
    },
    /// Another amount than was asked for, or one in no known currency.
    #[error("the provider reports {0}")]
    OtherAmount(String),
    /// A state that this service does not know.
    #[error("the provider reports a state that is not known here")]
    UnknownState,
    /// The refund has failed at the provider.
    #[error("the provider has given it up")]
    Failed,
    /// The provider has no charge or refund under the key, and may have forgotten the key.
    #[error("the provider has nothing under its key, and may have forgotten the key: it is not sent again")]
    KeyExpired,
    /// No answer for as long as the provider keeps a key, or pending for two weeks.
    #[error("the provider has not said for too long how it ended")]
    NoAnswer,
}

impl Doubt {
    /// Returns the name that is stored and shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "REFUSED",
            Self::OtherAmount(_) => "WRONG_AMOUNT",
            Self::UnknownState => "UNKNOWN_STATE",
            Self::Failed => "FAILED",
            Self::KeyExpired => "KEY_EXPIRED",
            Self::NoAnswer => "NO_ANSWER",
        }
    }
}
