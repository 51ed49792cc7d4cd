//! One failure, with a text for the caller and a text for the operator.

use crate::Reason;
use http::StatusCode;
use stampede_vocab::InvalidField;
use std::{collections::BTreeMap, fmt::Display, time::Duration};

/// A failure to be reported to the caller.
///
/// Everything but the internal text is sent. Boxed, so that `Result<T, Problem>` stays small.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", body.reason, body.detail)]
pub struct Problem {
    body: Box<Body>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Body {
    reason: Reason,
    detail: String,
    field: Option<String>,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    internal: Option<String>,
}

impl Problem {
    /// Makes a problem with a sentence for the caller. Transient reasons get their default retry delay.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Problem {
        Problem {
            body: Box::new(Body {
                reason,
                detail: detail.into(),
                field: None,
                metadata: BTreeMap::new(),
                retry_after: reason.default_retry(),
                internal: None,
            }),
        }
    }

    /// Reports a field of the request with an invalid value; `problem` says why.
    pub fn invalid_field(field: impl Into<String>, problem: impl Into<String>) -> Problem {
        Problem::new(Reason::InvalidField, problem).field(field)
    }

    /// Reports an unexpected failure. The caller gets no detail.
    pub fn internal_error(error: impl Display) -> Problem {
        Problem::new(Reason::Internal, "the request could not be handled").internal(error)
    }

    /// Reports a dependency that does not answer (`what`, a name that the caller may see).
    pub fn unavailable(what: impl Display, error: impl Display) -> Problem {
        Problem::new(Reason::Unavailable, format!("{what} is not available")).internal(error)
    }

    /// Names the field of the request that is at fault, as a path such as `lines[2].units`.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Problem {
        self.body.field = Some(name.into());
        self
    }

    /// Adds a machine-readable fact for the caller.
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: impl Display) -> Problem {
        self.body.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Sets the retry delay.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Problem {
        self.body.retry_after = Some(delay);
        self
    }

    /// Attaches a text for the operator; it is logged once and never sent.
    #[must_use]
    pub fn internal(mut self, cause: impl Display) -> Problem {
        self.body.internal = Some(cause.to_string());
        self
    }

    /// Returns the reason.
    pub fn reason(&self) -> Reason {
        self.body.reason
    }

    /// Returns the sentence for the caller.
    pub fn detail(&self) -> &str {
        &self.body.detail
    }

    /// Returns the path of the field at fault, if any.
    pub fn field_path(&self) -> Option<&str> {
        self.body.field.as_deref()
    }

    /// Returns the machine-readable facts for the caller.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.body.metadata
    }

    /// Returns the retry delay, if a retry helps.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.body.retry_after
    }

    /// Returns the internal text, which is for the operator only.
    pub fn internal_detail(&self) -> Option<&str> {
        self.body.internal.as_deref()
    }

    /// Returns the HTTP status of the answer.
    pub fn http(&self) -> StatusCode {
        self.reason().http()
    }

    /// Logs the internal text, if any. Called where the problem becomes an answer.
    pub(crate) fn log_internal(&self) {
        let Some(cause) = self.internal_detail() else {
            return;
        };
        let reason = self.reason().as_str();
        if self.reason() == Reason::Internal {
            tracing::error!(error.reason = reason, error.cause = cause, "request failed");
        } else {
            tracing::warn!(error.reason = reason, error.cause = cause, "request failed");
        }
    }
}

/// A page token has a reason of its own: it comes from an earlier answer, not from the caller's input.
impl From<InvalidField> for Problem {
    fn from(InvalidField { field, problem }: InvalidField) -> Self {
        let reason = if field == "page_token" { Reason::InvalidPageToken } else { Reason::InvalidField };
        Self::new(reason, problem).field(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_page_token_has_a_reason_of_its_own() {
        let reason = |field| Problem::from(InvalidField::new(field, "is wrong")).reason();
        assert_eq!(reason("page_token"), Reason::InvalidPageToken);
        assert_eq!(reason("page_size"), Reason::InvalidField);
    }

    #[test]
    fn the_display_form_never_shows_the_internal_text() {
        let problem = Problem::internal_error("password=hunter2");
        assert!(!problem.to_string().contains("hunter2"));
        assert_eq!(problem.internal_detail(), Some("password=hunter2"));
    }

    #[test]
    fn passing_reasons_say_when_to_retry_and_lasting_ones_do_not() {
        assert!(Problem::new(Reason::NotReady, "").retry_delay().is_some());
        assert!(Problem::new(Reason::SoldOut, "").retry_delay().is_none());
        let throttled = Problem::new(Reason::Throttled, "").retry_after(Duration::from_secs(3));
        assert_eq!(throttled.retry_delay(), Some(Duration::from_secs(3)));
    }
}
