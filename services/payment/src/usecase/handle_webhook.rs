//! Takes notices of the provider: a third way, beside answers and look-ups, to learn what became of a charge.

use crate::{
    domain::Failure,
    provider::{Notice, NoticeError, read_notice},
    usecase::Payments,
};
use stampede_vocab::InvalidField;

impl Payments {
    /// Takes in a signed notice. A repeat changes nothing.
    ///
    /// Answers and look-ups are settled whatever is remembered: they are what sets right a database that has lost a
    /// commit.
    pub async fn handle_webhook(&self, payload: &str, signature: &str) -> Result<(), Failure> {
        match read_notice(self.webhook_secret.as_bytes(), payload, signature)? {
            // Written and committed by this process: there is nothing left to do.
            Notice::Charge(key, outcome) if self.desk.recent_ends.have(key, &outcome) => Ok(()),
            Notice::Charge(key, outcome) => self.settle(key, outcome).await,
            Notice::Refund(key, outcome) => self.settle_refund(key, outcome).await,
            Notice::Other => Ok(()),
        }
    }
}

impl From<NoticeError> for Failure {
    fn from(error: NoticeError) -> Self {
        match error {
            NoticeError::BadSignature => Self::InvalidSignature,
            NoticeError::Unreadable(problem) => {
                Self::Invalid(InvalidField::new("payload", format!("is not a notice of the provider: {problem}")))
            }
        }
    }
}
