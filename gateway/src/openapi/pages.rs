//! The description and its page as they are served: rendered once, with entity tags, and with headers that forbid the
//! browser to load or run anything else.

use super::document;
use crate::{
    routes::{Page, Table},
    transcode::{is_known, name_of},
};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

/// Shows the description. It has one style and one script, and needs no other file.
const PAGE: &str = include_str!("page.html");
/// Bytes of the hash in a tag.
const TAG_BYTES: usize = 16;

/// The description and its page.
pub struct Pages {
    openapi: Kept,
    docs: Kept,
    /// The content security policy of the page.
    policy: HeaderValue,
}

/// A text that is served as it is.
struct Kept {
    media_type: &'static str,
    text: Bytes,
    tag: String,
}

impl Pages {
    pub fn new(table: &Table) -> Self {
        Self {
            openapi: Kept::new("application/json", document(table).to_string()),
            docs: Kept::new("text/html; charset=utf-8", PAGE.to_owned()),
            policy: HeaderValue::try_from(policy(PAGE)).expect("base64 is header text"),
        }
    }

    /// Returns the answer with a page, or without if the client has it.
    pub fn answer(&self, page: Page, cache_control: Option<&HeaderValue>, request: &HeaderMap) -> Response {
        let kept = match page {
            Page::OpenApi => &self.openapi,
            Page::Docs => &self.docs,
        };
        let mut response = if is_known(request, &kept.tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, kept.media_type)], kept.text.clone()).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, HeaderValue::from_str(&kept.tag).expect("hexadecimal digits are header text"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.extend(cache_control.map(|value| (header::CACHE_CONTROL, value.clone())));
        if page == Page::Docs {
            headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        response
    }
}

impl Kept {
    fn new(media_type: &'static str, text: String) -> Self {
        // Weak, so that it stays the same when the text is compressed.
        let tag = format!("W/\"{}\"", name_of(text.as_bytes(), TAG_BYTES));
        Self { media_type, text: text.into(), tag }
    }
}

/// Returns the policy that lets a page run its own script and style, and fetch from where it is from; nothing else.
fn policy(page: &str) -> String {
    let hash = |element: &str| base64(&Sha256::digest(within(page, element))[..]);
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
}

/// Returns the text of the one element of this name.
fn within<'p>(page: &'p str, element: &str) -> &'p str {
    let inner = page.split_once(&format!("<{element}>")).map(|(_, rest)| rest);
    let inner = inner.and_then(|rest| rest.split_once(&format!("</{element}>")));
    inner.map_or("", |(inner, _)| inner)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| (group << 8) | usize::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[(group >> (18 - 6 * place)) & 63]);
            text.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn the_page_runs_nothing_that_its_policy_forbids() {
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(!within(PAGE, element).is_empty(), "{element}");
        }
        for forbidden in [" style=", " onclick=", " onload=", "javascript:", "eval(", "http://", "https://", "@import"]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        assert!(PAGE.len() < 20_000, "{} bytes", PAGE.len());
    }
}
