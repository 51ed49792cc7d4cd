//! The id that a request has in answers, problems, logs and metadata.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderValue};
use stampede_chassis::telemetry::{self, REQUEST_ID};
use std::sync::Arc;
use uuid::Uuid;

/// 1 to 64 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's own id, unless it is one that nobody should have to read.
    fn of(headers: &HeaderMap) -> Self {
        telemetry::request_id(headers).map_or_else(Self::fresh, |id| Self(id.into()))
    }

    #[expect(clippy::disallowed_methods, reason = "the id of a request only names it; nothing is decided by it")]
    fn fresh() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::now_v7().hyphenated().encode_lower(&mut buffer)))
    }

    #[cfg(test)]
    pub(crate) fn of_test(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The outermost layer: names the request, and writes the name into the answer.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let value = HeaderValue::from_str(id.as_str()).expect("printable ASCII is header text");
    response.headers_mut().insert(REQUEST_ID, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_is_replaced() {
        let of = |text| {
            RequestId::of(&HeaderMap::from_iter([(REQUEST_ID.parse().unwrap(), HeaderValue::from_static(text))]))
        };
        assert_eq!(of("order-42/retry:1").as_str(), "order-42/retry:1");
        let replaced = of("two words");
        assert!(Uuid::try_parse(replaced.as_str()).is_ok(), "{replaced:?}");
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }
}
