//! Requests to the provider over HTTP/JSON. Each has a time-out and is sent once: the use cases decide about retries,
//! always under the same idempotency key.

use crate::{
    domain::{AttemptKey, ChargeOrder, Outcome, Refund},
    provider::{Breaker, ChargeStatus, bounded_id, code, money, outcome},
};
use anyhow::ensure;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Time-out of an idle connection.
const IDLE: Duration = Duration::from_secs(30);

/// A client of a provider over HTTP. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub struct HttpProvider {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    timeout: Duration,
    breaker: Breaker,
}

/// Why there is no reliable answer. The request may or may not have taken effect.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider fails, so that it was not asked.
    #[error("the provider was not asked, since it fails")]
    HeldBack,
    /// The answer did not come in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The provider could not be reached, or the connection broke.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The provider failed, is busy, or rejects the request as malformed.
    #[error("the provider answered {status} {code}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The provider's own code, if it gave one.
        code: String,
    },
    /// The answer is malformed.
    #[error("the provider's answer cannot be read: {0}")]
    Unreadable(String),
}

/// The result of a look-up by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// It has the charge.
    Found(Outcome),
    /// It never took a charge under this key.
    NotFound,
}

#[derive(Deserialize)]
struct ChargeAnswer {
    id: String,
    status: ChargeStatus,
    amount_minor: i64,
    currency: String,
    decline_code: Option<String>,
}

#[derive(Deserialize)]
struct RefundAnswer {
    id: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorCode,
}

#[derive(Deserialize)]
struct ErrorCode {
    code: String,
}

struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl HttpProvider {
    /// Returns a client of the provider at `base` (`http://host:port`). `timeout` is that of each request.
    ///
    /// Fails for any other scheme: the egress proxy encrypts what leaves the private network.
    pub fn new(base: &Uri, timeout: Duration, breaker: Breaker) -> anyhow::Result<Self> {
        ensure!(base.scheme_str() == Some("http"), "the provider's URL must be http://host:port");
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { client, base: base.to_string().trim_end_matches('/').to_owned(), timeout, breaker })
    }

    /// The breaker that holds requests back while the provider fails.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Sends a charge. A repeat under the same key gets the answer of the first and charges nothing.
    pub async fn charge(&self, order: &ChargeOrder) -> Result<Outcome, ProviderError> {
        let body = json!({
            "amount_minor": order.amount.minor_units,
            "currency": order.amount.currency.as_str(),
            "payment_method": order.payment_method,
        });
        let answer = self.post("/v1/charges", &order.key.to_string(), &body).await?;
        match answer.status {
            // Refused by the bank, or a request that can never be granted: nothing was captured.
            StatusCode::PAYMENT_REQUIRED | StatusCode::UNPROCESSABLE_ENTITY => {
                Ok(Outcome::Declined { code: code(Some(answer.error_code())) })
            }
            _ => answer.granted::<ChargeAnswer>()?.into_outcome(),
        }
    }

    /// Looks up a charge by its key.
    pub async fn look_up(&self, key: AttemptKey) -> Result<LookUp, ProviderError> {
        let request = Request::get(format!("{}/v1/charges/by-key/{key}", self.base)).body(Full::default());
        let answer = self.send(request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(LookUp::NotFound);
        }
        answer.granted::<ChargeAnswer>()?.into_outcome().map(LookUp::Found)
    }

    /// Refunds a charge. Returns the provider's id of the refund.
    pub async fn refund(&self, refund: &Refund, charge_id: &str) -> Result<String, ProviderError> {
        let body = json!({"charge_id": charge_id, "amount_minor": refund.amount.minor_units});
        let answer = self.post("/v1/refunds", &refund.key().to_string(), &body).await?;
        readable_id(answer.granted::<RefundAnswer>()?.id)
    }

    async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer, ProviderError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Full::from(body.to_string()));
        self.send(request).await
    }

    async fn send(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<Answer, ProviderError> {
        let request = request.map_err(|error| ProviderError::Unreachable(error.to_string()))?;
        if !self.breaker.admit() {
            return Err(ProviderError::HeldBack);
        }
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| unreachable_because(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| ProviderError::Unreachable(error.to_string()))?.to_bytes();
            Ok(Answer { status, body })
        };
        let answer = timeout(self.timeout, exchange).await.unwrap_or(Err(ProviderError::TimedOut(self.timeout)));
        self.breaker.record(answer.as_ref().map_or(true, Answer::is_failure));
        answer
    }
}

impl Answer {
    /// Whether the provider fails or is busy, whatever it was asked.
    fn is_failure(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// Returns the body of a successful answer. Fails for any other status.
    fn granted<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        if !self.status.is_success() {
            return Err(ProviderError::Refused { status: self.status, code: self.error_code() });
        }
        serde_json::from_slice(&self.body).map_err(|error| ProviderError::Unreadable(error.to_string()))
    }

    fn error_code(&self) -> String {
        serde_json::from_slice::<ErrorAnswer>(&self.body).map(|answer| answer.error.code).unwrap_or_default()
    }
}

impl ChargeAnswer {
    fn into_outcome(self) -> Result<Outcome, ProviderError> {
        let amount = money(self.amount_minor, &self.currency);
        let outcome = outcome(&self.status, readable_id(self.id)?, amount, self.decline_code);
        outcome.ok_or_else(|| ProviderError::Unreadable(format!("currency {:?}", self.currency)))
    }
}

fn readable_id(id: String) -> Result<String, ProviderError> {
    bounded_id(id)
        .ok_or_else(|| ProviderError::Unreadable("the id is not 1 to 255 visible ASCII characters".to_owned()))
}

/// Returns the error with its causes, which hyper-util leaves out of its message.
fn unreachable_because(error: &hyper_util::client::legacy::Error) -> ProviderError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    ProviderError::Unreachable(text)
}
