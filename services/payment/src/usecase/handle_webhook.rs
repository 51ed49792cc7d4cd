//! Handles notices of the provider, a third source of outcomes besides answers and look-ups.

use super::{Context, Error, SettleAttempts, SettleRefunds};
use crate::provider::{Notice, NoticeError, read_notice};
use stampede_vocab::InvalidField;
use std::sync::Arc;

/// Handles notices. Cheap to clone.
#[derive(Clone)]
pub struct HandleWebhook {
    context: Context,
    settle: SettleAttempts,
    settle_refunds: SettleRefunds,
    secret: Arc<str>,
}

impl HandleWebhook {
    /// Handles notices that are signed with `secret`.
    pub fn new(context: Context, settle: SettleAttempts, settle_refunds: SettleRefunds, secret: &str) -> Self {
        Self { context, settle, settle_refunds, secret: secret.into() }
    }

    /// Applies a signed notice. It is idempotent.
    ///
    /// Only notices are deduplicated by the cache of this process. Answers and look-ups are always settled, so that
    /// they repair a database that has lost a commit.
    pub async fn run(&self, payload: &str, signature: &str) -> Result<(), Error> {
        match read_notice(self.secret.as_bytes(), payload, signature)? {
            // This process has committed it already.
            Notice::Charge(key, outcome) if self.context.recent_ends.have(key, &outcome) => Ok(()),
            Notice::Charge(key, outcome) => self.settle.run(key, outcome).await,
            Notice::Refund(key, outcome) => self.settle_refunds.run(key, outcome).await,
            Notice::Other => Ok(()),
        }
    }
}

impl From<NoticeError> for Error {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::BadSignature => Self::InvalidSignature,
            NoticeError::Unreadable(problem) => {
                Self::Invalid(InvalidField::new("payload", format!("is not a notice of the provider: {problem}")))
            }
        }
    }
}
