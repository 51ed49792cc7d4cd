//! The gateway under test, and requests to it.

use crate::meters::measure;
use axum::{Router, body::Body, response::Response};
use clap::Parser;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use stampede_chassis::{Http, Peer, Workers};
use stampede_gateway::Config;
use stampede_lua::gate::UserId;
use stampede_vocab::Service;
use tower::ServiceExt;

pub const SECRET: &str = "a secret of the tests, 32 bytes or more";
/// A port that nobody listens on.
const NOBODY: &str = "http://127.0.0.1:1";
/// The value of a flag that is left out, so that it has the default of the gateway.
pub const DEFAULT: &str = "the default";

/// A gateway, and how to stop its streams.
pub struct Front {
    router: Router,
    pub workers: Workers,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Front {
    /// Starts a gateway whose services are all down, but for those in `flags`.
    pub async fn start(flags: &[(&str, &str)]) -> Self {
        let workers = Workers::new();
        Self { router: build(flags, &workers).await.into_router(), workers }
    }

    /// Sends a request. Returns the answer with its body still to come.
    pub async fn open(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(request("GET", path, token, "")).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.send(request("POST", path, token, &body.to_string())).await
    }

    /// Returns the gateway's answer to a new anonymous buyer.
    pub async fn new_buyer(&self) -> Value {
        let answer = self.post("/v1/auth/tokens", "", &json!({})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.json()
    }
}

/// Builds the HTTP side of a gateway with these flags.
pub async fn build(flags: &[(&str, &str)], workers: &Workers) -> Http {
    try_build(flags, workers).await.unwrap()
}

/// Builds the same where it may fail.
pub async fn try_build(flags: &[(&str, &str)], workers: &Workers) -> anyhow::Result<Http> {
    measure();
    let redis = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names the Redis of the tests");
    let prefix = format!("test-gateway:{}:", UserId::random());
    let services = Service::ALL.map(|service| format!("--{service}-urls"));
    let nowhere = services.iter().map(|flag| (flag.as_str(), NOBODY));
    let own = [
        ("--redis-url", redis.as_str()),
        ("--auth-secret", SECRET),
        ("--redis-key-prefix", prefix.as_str()),
        // On a machine that stands still for a while, acts would be let through without being counted.
        ("--act-limits-wait-ms", "2000"),
    ];
    let defaults = nowhere.chain(own).filter(|(name, _)| !flags.iter().any(|(flag, _)| flag == name));
    let mut settings: Vec<_> = defaults.collect();
    settings.extend(flags);
    settings.retain(|(_, value)| *value != DEFAULT);
    let args = settings.iter().flat_map(|(name, value)| [*name, *value]);
    let config = Config::try_parse_from(["gateway", "--insecure-mesh"].into_iter().chain(args)).unwrap();
    stampede_gateway::build(config, workers.clone()).await
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns its reason, if it is a problem, and checks the fields that every problem must have.
    pub fn reason(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        assert_eq!(problem["trace_id"], self.headers["x-trace-id"].to_str().unwrap(), "{self:?}");
        let reason = problem["reason"].as_str().unwrap().to_owned();
        assert!(problem["type"].as_str().unwrap().ends_with(&format!("#{reason}")), "{self:?}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{self:?}");
        reason
    }
}

/// Returns a request; without a header for an empty token.
pub fn request(method: &str, path: &str, token: &str, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

/// Returns the same request with these headers.
pub fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    request
}

/// Returns the same request from this address, as the server reports it.
pub fn from(address: &str, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Peer(address.parse().unwrap()));
    request
}

/// Returns a token as `stampede token` makes it.
pub fn token(role: &str, expires_at: i64) -> String {
    let claims = json!({
        "sub": "usr_0000000000000000000000001a", "role": role, "iat": 0, "exp": expires_at, "iss": "stampede", "jti": "1",
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// Returns a token that is valid for the time being.
pub fn good_token(role: &str) -> String {
    token(role, 4_000_000_000)
}
