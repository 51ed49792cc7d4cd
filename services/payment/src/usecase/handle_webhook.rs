//! Handles notices of the provider. A notice is a hint, and never an outcome: what it is about is looked up.

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

    /// Looks up what a signed notice is about, and stores how that stands. It is idempotent.
    ///
    /// Only notices are deduplicated by the cache of this process. Answers and look-ups are always settled, so that
    /// they repair a database that has lost a commit.
    pub async fn run(&self, payload: &str, signature: &str) -> Result<(), Error> {
        let notice = read_notice(&self.secrets, payload, signature, Timestamp::now())?;
        self.apply(notice).await.map_err(of_notice)
    }

    async fn apply(&self, notice: Notice) -> Result<(), Error> {
        match notice {
            // This process has committed it already.
            Notice::Charge(key, outcome) if self.context.recent_ends.have(key, &outcome) => Ok(()),
            Notice::Charge(key, told) => self.look_up.charge(key, &told).await,
            Notice::Refund(key) => self.look_up.refund(key).await,
            Notice::ForeignRefund { charge_id } => self.look_up.foreign_refund(&charge_id).await,
            Notice::Other => Ok(()),
        }
    }
}

/// Returns the answer to a notice that failed. What the database refuses for a reason in the data is the fault of this
/// notice: a repeat does not help, so that the provider gets no failure that it would retry.
fn of_notice(error: Error) -> Error {
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
