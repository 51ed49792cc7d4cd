//! The id that a request has in answers, problems, logs and traces.

use http::HeaderValue;
use stampede_chassis::telemetry;
use std::sync::Arc;
use tracing::Span;
use uuid::Uuid;

/// Header of every answer.
pub const HEADER: &str = "x-trace-id";

/// The trace id of a request (W3C Trace Context): 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceId(Arc<str>);

impl TraceId {
    /// Returns the id of the trace of this span: that of the `traceparent` of a trusted proxy, else a new one.
    pub fn of(span: &Span) -> Self {
        Self::from(telemetry::trace_id(span).unwrap_or_else(fresh))
    }

    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        Self("0af7651916cd43dd8448eb211c80319c".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hexadecimal digits are header text")
    }
}

impl From<String> for TraceId {
    /// Makes an id of these digits.
    fn from(digits: String) -> Self {
        Self(digits.into())
    }
}

/// Returns the name of a request where there is no telemetry, as in tests.
#[expect(clippy::disallowed_methods, reason = "the id only names the request; nothing is decided by it")]
fn fresh() -> String {
    Uuid::now_v7().simple().to_string()
}
