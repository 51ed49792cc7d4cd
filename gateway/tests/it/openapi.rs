//! The description of the API and the page that shows it, as clients get them.

use crate::front::{Front, request, with};
use http::header;
use http_body_util::BodyExt;

#[tokio::test]
async fn the_description_is_served_and_not_sent_twice() {
    let front = Front::start(&[]).await;
    let first = front.get("/openapi.json", "").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(first.headers[header::CACHE_CONTROL], "public, max-age=1");
    let described = first.json();
    assert_eq!(described["openapi"], "3.1.0");
    assert!(described["paths"]["/v1/orders"]["post"].is_object());

    let tag = first.headers[header::ETAG].to_str().unwrap();
    let again = front.send(with(request("GET", "/openapi.json", "", ""), &[("if-none-match", tag)])).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    assert_eq!(again.headers[header::ETAG], tag);
    let unknown = front.get("/openapi.json?format=yaml", "").await;
    assert_eq!((unknown.status.as_u16(), unknown.reason().as_str()), (400, "UNKNOWN_FIELD"));
}

#[tokio::test]
async fn the_description_is_compressed_for_who_takes_that() {
    let front = Front::start(&[]).await;
    let plain = front.get("/openapi.json", "").await;
    let ask = with(request("GET", "/openapi.json", "", ""), &[("accept-encoding", "gzip")]);
    let (head, body) = front.open(ask).await.into_parts();
    assert_eq!(head.headers[header::CONTENT_ENCODING], "gzip");
    assert_eq!(head.headers[header::ETAG], plain.headers[header::ETAG]);
    let bytes = body.collect().await.unwrap().to_bytes().len();
    assert!(bytes * 4 < plain.text.len(), "{bytes} of {}", plain.text.len());
}

#[tokio::test]
async fn the_page_may_run_what_is_in_it_and_nothing_else() {
    let front = Front::start(&[]).await;
    let page = front.get("/docs", "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    for rule in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(page.text.contains("openapi.json") && page.text.starts_with("<!doctype html>"));
}
