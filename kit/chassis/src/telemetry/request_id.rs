//! The name of a request in the logs and spans of all that work on it. It only names: nothing is decided by it.

use http::HeaderMap;

/// Header, and metadata, with the id of the request.
pub const REQUEST_ID: &str = "x-request-id";

/// Longest id that anybody should have to read.
const LONGEST: usize = 64;

/// The id that the request came with, if it is 1 to 64 printable ASCII characters without blanks.
pub fn request_id(headers: &HeaderMap) -> Option<&str> {
    let sane = |id: &&str| (1..=LONGEST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    headers.get(REQUEST_ID)?.to_str().ok().filter(sane)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_an_id_that_people_can_read_is_taken() {
        let taken = |id: &str| {
            let value = HeaderValue::from_str(id).unwrap();
            let headers = HeaderMap::from_iter([(HeaderName::from_static(REQUEST_ID), value)]);
            request_id(&headers).map(str::to_owned)
        };
        assert_eq!(taken("order-42/retry:1").as_deref(), Some("order-42/retry:1"));
        for insane in [String::new(), "two words".to_owned(), "tab\there".to_owned(), "x".repeat(65)] {
            assert_eq!(taken(&insane), None, "{insane:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
