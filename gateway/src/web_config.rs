//! Rules for browsers, for caches in front of the gateway and for its own; and the layers that apply them.
//!
//! The layers wrap the one handler of the gateway: they come from a library and know nothing of it. Compression wraps
//! the handler and not the router, which would box each request twice more. A layer that is not configured is left out.

use axum::{Router, handler::Handler};
use http::{HeaderName, HeaderValue, Method};
use std::time::Duration;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

/// Time for which a browser may keep the answer to a preflight; no browser keeps it for longer.
const PREFLIGHT_LIFE: Duration = Duration::from_secs(7_200);

/// Headers that pages may send: those of HTTP, then those of Connect and gRPC-Web.
const ALLOWED_HEADERS: [&str; 11] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "last-event-id",
    "traceparent",
    "connect-protocol-version",
    "connect-timeout-ms",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
];
/// Headers that pages may read; an error without a body carries its status in those of gRPC.
const EXPOSED_HEADERS: [&str; 8] = [
    "allow",
    "etag",
    "retry-after",
    "www-authenticate",
    crate::trace_id::HEADER,
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
];

/// Rules for browsers, for caches in front and for the gateway's own.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Browsers and caches")]
pub struct WebConfig {
    /// Origins whose pages may use the API (CORS), comma separated, such as https://shop.example; * for all. None,
    /// unless given.
    #[arg(long, env = "STAMPEDE_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// Time for which any cache may keep an answer that is the same for everybody, in seconds; 0 makes it revalidate
    /// each time.
    #[arg(long, env = "STAMPEDE_PUBLIC_MAX_AGE_S", value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub public_max_age_s: u32,

    /// Time for which the gateway gives an answer that is the same for everybody again to readers without a token, in
    /// milliseconds; those who ask for it at a time share one call. 0 makes a call for each.
    #[arg(long, env = "STAMPEDE_SHARED_READ_MS", value_name = "MS", default_value_t = 200,
          value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub shared_read_ms: u64,

    /// Answers of so many bytes and more are compressed for clients that accept gzip; 0 compresses none.
    #[arg(long, env = "STAMPEDE_COMPRESS_FROM_BYTES", value_name = "BYTES", default_value_t = 1_024)]
    pub compress_from_bytes: u16,
}

impl WebConfig {
    /// Returns the time for which readers share an answer; `None` for not at all.
    pub fn shared_read(&self) -> Option<Duration> {
        (self.shared_read_ms > 0).then(|| Duration::from_millis(self.shared_read_ms))
    }

    /// Returns a router that answers every request by `handler`, with the layers around it.
    pub fn around<H, T, S>(&self, handler: H, state: S) -> Router
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        let router = match self.compress_from_bytes {
            0 => Router::new().fallback(handler),
            bytes => Router::new().fallback(handler.layer(compression(bytes))),
        };
        let router = router.with_state(state);
        if self.cors_origins.is_empty() { router } else { router.layer(self.cors()) }
    }

    /// Returns the CORS layer. Pages send their tokens themselves, in a header: there are no cookies, so credentials
    /// are not allowed.
    fn cors(&self) -> CorsLayer {
        let origins = if self.cors_origins.iter().any(|origin| origin == "*") {
            AllowOrigin::any()
        } else {
            AllowOrigin::list(self.cors_origins.clone())
        };
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers(ALLOWED_HEADERS.map(HeaderName::from_static))
            .expose_headers(EXPOSED_HEADERS.map(HeaderName::from_static))
            .max_age(PREFLIGHT_LIFE)
    }
}

fn compression(from_bytes: u16) -> CompressionLayer<impl Predicate> {
    // Events are sent as they happen, not when a block of the compressor is full.
    let large = SizeAbove::new(from_bytes).and(NotForContentType::const_new("text/event-stream"));
    // gRPC compresses its messages one by one, with headers of its own.
    let large = large.and(NotForContentType::const_new("application/grpc"));
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(large)
}

/// Reads `*`, or an origin as browsers send it: scheme and host, with a port if it is not that of the scheme.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let is_origin = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']);
    if text != "*" && !is_origin {
        return Err("an origin is a scheme and a host without a slash behind it, such as https://shop.example".into());
    }
    HeaderValue::from_str(text).map_err(|_| "an origin is ASCII".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_as_browsers_send_it() {
        for text in ["*", "https://shop.example", "http://127.0.0.1:3000"] {
            assert_eq!(origin(text).unwrap(), text);
        }
        for text in ["", "shop.example", "https://", "https://shop.example/", "https://*.example", "https://a@b"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
