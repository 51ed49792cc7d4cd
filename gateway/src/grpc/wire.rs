//! The protocols of a call, distinguished by the method, the path and the content type of the request.

use http::{HeaderMap, Method, Request, Version, header};
use stampede_chassis::Deadline;
use std::time::Duration;

/// Header of Connect with the time that the caller waits, in milliseconds.
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// The media types of gRPC, gRPC-Web and Connect that [`Wire::of`] accepts, as a header lists them.
pub const GRPC: &str = "application/grpc, application/grpc+proto";
const WEB: &str = "application/grpc-web, application/grpc-web+proto, application/grpc-web-text, \
     application/grpc-web-text+proto";
const CONNECT: &str = "application/proto, application/json";

/// The protocol of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// gRPC: messages in frames, the status in trailers. Over HTTP/2 only.
    Grpc,
    /// gRPC-Web: the status in a last frame.
    Web,
    /// gRPC-Web in base64.
    WebText,
    /// Connect with protobuf: a request and an answer without frames.
    ConnectProto,
    ConnectJson,
}

impl Wire {
    /// Returns the protocol of a call; `None` for a request that is no call.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.method() != Method::POST || !is_path_of_method(request.uri().path()) {
            return None;
        }
        let content_type = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/grpc" | "application/grpc+proto" => {
                // Over HTTP/1 there are no trailers that every client reads.
                (request.version() == Version::HTTP_2).then_some(Self::Grpc)
            }
            "application/grpc-web" | "application/grpc-web+proto" => Some(Self::Web),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(Self::WebText),
            "application/proto" => Some(Self::ConnectProto),
            "application/json" => Some(Self::ConnectJson),
            _ => None,
        }
    }

    /// Returns the content type of answers.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text+proto",
            Self::ConnectProto => "application/proto",
            Self::ConnectJson => "application/json",
        }
    }

    /// Returns whether it is Connect, which has only unary calls here.
    pub const fn is_connect(self) -> bool {
        matches!(self, Self::ConnectProto | Self::ConnectJson)
    }

    /// Returns the caller's deadline, if they gave one.
    pub fn deadline(self, headers: &HeaderMap) -> Option<Deadline> {
        if self.is_connect() { connect_deadline(headers) } else { Deadline::from_headers(headers) }
    }
}

/// Returns the media types that calls may have, where gRPC is spoken and where Connect is.
pub fn media_types(is_grpc: bool, is_connect: bool) -> String {
    let spoken = [is_grpc.then_some(GRPC), Some(WEB), is_connect.then_some(CONNECT)];
    spoken.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Reads up to ten digits; a value that cannot be read counts as absent.
fn connect_deadline(headers: &HeaderMap) -> Option<Deadline> {
    let text = headers.get(CONNECT_TIMEOUT)?.to_str().ok()?;
    if text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(|millis| Deadline::after(Duration::from_millis(millis)))
}

/// Returns whether a path is `/package.Service/Method`. No path of HTTP/JSON has a dot in its first segment.
fn is_path_of_method(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else { return false };
    service.contains('.') && !method.is_empty() && !method.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(method: Method, path: &str, version: Version, content_type: &str) -> Option<Wire> {
        let request = Request::builder().method(method).uri(path).version(version);
        Wire::of(&request.header(header::CONTENT_TYPE, content_type).body(()).unwrap())
    }

    #[test]
    fn a_call_is_known_by_its_path_and_content_type() {
        const PATH: &str = "/stampede.order.v1.OrderService/GetOrder";
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (method, path, version, content_type, expected) in [
            (Method::POST, PATH, two, "application/grpc", Some(Wire::Grpc)),
            (Method::POST, PATH, two, "application/grpc+proto", Some(Wire::Grpc)),
            (Method::POST, PATH, one, "application/grpc", None),
            (Method::POST, PATH, one, "application/grpc-web+proto", Some(Wire::Web)),
            (Method::POST, PATH, one, "Application/gRPC-Web-Text", Some(Wire::WebText)),
            (Method::POST, PATH, one, "application/proto", Some(Wire::ConnectProto)),
            (Method::POST, PATH, one, "application/json; charset=utf-8", Some(Wire::ConnectJson)),
            (Method::GET, PATH, two, "application/grpc", None),
            (Method::POST, PATH, two, "application/grpc+json", None),
            (Method::POST, PATH, one, "text/plain", None),
            (Method::POST, "/v1/orders", one, "application/json", None),
            (Method::POST, "/v1/events/evt.1", one, "application/json", None),
            (Method::POST, "/a.B/", two, "application/grpc", None),
            (Method::POST, "/a.B/C/D", two, "application/grpc", None),
            (Method::POST, "/", two, "application/grpc", None),
        ] {
            assert_eq!(wire(method, path, version, content_type), expected, "{path} {content_type}");
        }
    }

    #[test]
    fn every_media_type_that_is_listed_is_taken() {
        let listed = media_types(true, true);
        let listed: Vec<_> = listed.split(", ").collect();
        assert_eq!(listed.len(), 8, "{listed:?}");
        for media_type in listed {
            let taken = wire(Method::POST, "/a.B/C", Version::HTTP_2, media_type);
            assert!(taken.is_some(), "{media_type}");
        }
        assert!(!media_types(false, true).contains(GRPC) && !media_types(true, false).contains(CONNECT));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_caller_waits_is_read_in_the_words_of_the_protocol() {
        for (wire, name, value, expected) in [
            (Wire::Grpc, "grpc-timeout", "2S", Some(2_000)),
            (Wire::ConnectJson, "connect-timeout-ms", "1500", Some(1_500)),
            (Wire::ConnectJson, "connect-timeout-ms", "12345678901", None),
            (Wire::ConnectProto, "connect-timeout-ms", "-1", None),
            (Wire::ConnectProto, "grpc-timeout", "2S", None),
            (Wire::Web, "connect-timeout-ms", "1500", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let wait = wire.deadline(&headers).map(Deadline::remaining);
            assert_eq!(wait, expected.map(Duration::from_millis), "{name}: {value}");
        }
    }
}
