//! The id that a request has in answers, problems, logs and metadata.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST: usize = 64;

/// 1 to 64 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's own id, unless it is one that nobody should have to read.
    fn of(header: Option<&HeaderValue>) -> Self {
        let sane =
            |text: &&str| (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        match header.and_then(|value| value.to_str().ok()).filter(sane) {
            Some(text) => Self(text.into()),
            None => Self::fresh(),
        }
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
    let id = RequestId::of(request.headers().get(HEADER));
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let value = HeaderValue::from_str(id.as_str()).expect("printable ASCII is header text");
    response.headers_mut().insert(HEADER, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_is_replaced() {
        let of = |text: &'static str| RequestId::of(Some(&HeaderValue::from_static(text)));
        assert_eq!(of("order-42/retry:1").as_str(), "order-42/retry:1");
        let long: &'static str = "x".repeat(65).leak();
        for insane in ["", "two words", "tab\there", long] {
            let id = of(insane);
            assert_ne!(id.as_str(), insane);
            assert!(Uuid::try_parse(id.as_str()).is_ok(), "{id:?}");
        }
        assert_ne!(RequestId::of(None), RequestId::of(None));
    }
}
