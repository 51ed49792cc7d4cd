//! Conditional requests: a tag for each answer, and no body for a client that has it already (RFC 9110, 13).
//!
//! The tag is weak: it is one of the meaning and not of the bytes, so it stays the same when the answer is compressed.

use crate::hex::hex;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

/// Bytes of the hash in a tag. Nobody gains by a collision, and by chance there is none.
const TAG_BYTES: usize = 16;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// Returns the answer with this text. `cache_control` is for answers that may be kept, and revalidated by their tag.
pub fn json(text: Bytes, cache_control: Option<&HeaderValue>, headers: &HeaderMap) -> Response {
    let Some(cache_control) = cache_control else { return ([(header::CONTENT_TYPE, JSON)], text).into_response() };
    let tag = format!("W/\"{}\"", name_of(&text, TAG_BYTES));
    let mut response = if is_known(headers, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        ([(header::CONTENT_TYPE, JSON)], text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits are header text"));
    headers.insert(header::CACHE_CONTROL, cache_control.clone());
    headers.insert(header::VARY, ACCEPT_ENCODING);
    response
}

/// Returns a name for the content of a text: so many bytes of its SHA-256, in hexadecimal digits.
pub fn name_of(text: &[u8], bytes: usize) -> String {
    hex(&Sha256::digest(text)[..bytes])
}

/// Returns whether `If-None-Match` names the tag, by the weak comparison. Our tags have no commas.
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let wanted = opaque(tag);
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).any(|known| known == "*" || opaque(known) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(if_none_match: Option<&str>, cache_control: Option<&HeaderValue>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(value) = if_none_match {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
        }
        json(Bytes::from_static(b"{}"), cache_control, &headers)
    }

    #[test]
    fn who_has_the_answer_gets_no_body() {
        let kept = HeaderValue::from_static("public, max-age=1");
        let first = answered(None, Some(&kept));
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!((first.status(), &first.headers()[header::CACHE_CONTROL]), (StatusCode::OK, &kept));
        let (strong, list) = (tag.trim_start_matches("W/").to_owned(), format!("\"a\", {tag}"));
        for (value, status) in [(&*tag, 304), (&*strong, 304), (&*list, 304), ("*", 304), ("\"a\"", 200), ("", 200)] {
            let answer = answered(Some(value), Some(&kept));
            assert_eq!(answer.status(), status, "{value}");
            assert_eq!(answer.headers()[header::ETAG], tag, "{value}");
        }
    }

    #[test]
    fn what_may_not_be_kept_has_no_tag() {
        let answer = answered(Some("*"), None);
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key(header::ETAG));
    }
}
