//! Handles notices of the provider. A notice is a hint, and never an outcome: its charge or refund is looked up.

use super::{Context, Error, LookUpNotices};
use crate::provider::{Notice, NoticeError, WebhookSecrets, read_notice};
use stampede_vocab::{InvalidField, Timestamp};

/// Handles notices. Cheap to clone.
#[derive(Clone)]
pub struct HandleWebhook {
    context: Context,
    look_up: LookUpNotices,
    secrets: WebhookSecrets,
}

impl HandleWebhook {
    /// Handles notices that are signed with one of these secrets.
    pub fn new(context: Context, look_up: LookUpNotices, secrets: WebhookSecrets) -> Self {
        Self { context, look_up, secrets }
    }

    /// Looks up the charge or refund of a signed notice, and stores its outcome. Idempotent.
    ///
    /// Only notices are deduplicated by the cache of this process. Answers and look-ups are always stored, so that they
    /// repair a database that has lost a commit.
    pub async fn run(&self, payload: &str, signature: &str) -> Result<(), Error> {
        let notice = read_notice(&self.secrets, payload, signature, Timestamp::now())?;
        self.apply(notice).await.map_err(notice_error)
    }

    async fn apply(&self, notice: Notice) -> Result<(), Error> {
        match notice {
            // This process has committed it already.
            Notice::Charge(key, outcome) if self.context.recent_outcomes.contains(key, &outcome) => Ok(()),
            Notice::Charge(key, reported) => self.look_up.charge(key, &reported).await,
            Notice::Refund { key, has_failed } => self.look_up.refund(key, has_failed).await,
            Notice::ForeignRefund { charge_id } => self.look_up.foreign_refund(&charge_id).await,
            Notice::Other => Ok(()),
        }
    }
}

/// Returns the error for the provider. Data that the database refuses is reported as the fault of the notice: a retry
/// would not help, and the provider retries other failures.
fn notice_error(error: Error) -> Error {
    match error {
        Error::Db(error) if error.is_reproducible() => {
            tracing::error!(error.cause = %error, "a notice of the provider cannot be stored");
            InvalidField::new("payload", "cannot be stored").into()
        }
        error => error,
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
