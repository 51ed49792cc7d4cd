//! Requests to the provider over HTTP/JSON. Each has a time-out and is sent once: the use cases decide about retries,
//! always under the same idempotency key.

use crate::{
    domain::{AttemptKey, ChargeRequest, Doubt, Outcome, Refund, RefundOutcome},
    provider::{
        Breaker, ChargeRecord, RefundPage,
        answer::{ChargeAnswer, ErrorAnswer, RefundAnswer, RefundListAnswer},
        code, is_plain,
    },
};
use anyhow::ensure;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longest body of an answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Time-out of an idle connection.
const IDLE: Duration = Duration::from_secs(30);
/// Most refunds of a page, which must fit into the longest body.
const MAX_REFUNDS_PER_PAGE: u32 = 50;
/// Error code for an invalid token of a card.
const INVALID_PAYMENT_METHOD: &str = "invalid_payment_method";
/// Error code for a key that was used for another request. Any other conflict is with a request under way.
const KEY_REUSED: &str = "idempotency_key_reused";
/// Transient refusals: they are about the credentials or the time, not about the request.
const TRANSIENT_REFUSALS: [StatusCode; 5] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
];

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
    /// The breaker is open, so the request was not sent.
    #[error("the provider was not asked, since it fails")]
    BreakerOpen,
    /// The answer did not come in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The provider could not be reached, or the connection broke.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The provider failed, is busy, or refuses the request.
    #[error("the provider answered {status} {code}")]
    Refused {
        status: StatusCode,
        /// The provider's own code, if it gave one.
        code: String,
    },
    #[error("the provider's answer cannot be read: {0}")]
    Unreadable(String),
}

impl ProviderError {
    /// Returns whether a retry of the look-up would fail as well.
    pub fn is_permanent(&self) -> bool {
        self.doubt().is_some() || matches!(self, Self::Unreadable(_))
    }

    /// Returns why a retry would get the same answer; `None` if it may get another.
    pub fn doubt(&self) -> Option<Doubt> {
        match self {
            Self::Refused { status, code } if is_permanent_refusal(*status, code) => {
                Some(Doubt::Refused { status: status.as_u16(), code: code.clone() })
            }
            Self::Refused { .. }
            | Self::BreakerOpen
            | Self::TimedOut(_)
            | Self::Unreachable(_)
            | Self::Unreadable(_) => None,
        }
    }

    /// Returns whether the request was sent, or tried to be.
    pub fn was_sent(&self) -> bool {
        !matches!(self, Self::BreakerOpen)
    }
}

fn is_permanent_refusal(status: StatusCode, code: &str) -> bool {
    let is_under_way = status == StatusCode::CONFLICT && code != KEY_REUSED;
    status.is_client_error() && !TRANSIENT_REFUSALS.contains(&status) && !is_under_way
}

/// Returns an id of the provider if it is a safe path segment.
fn path_segment(id: &str) -> Result<&str, ProviderError> {
    if is_plain(id) { Ok(id) } else { Err(ProviderError::Unreadable("an id has odd characters".to_owned())) }
}

/// The result of a look-up by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// The provider has the charge.
    Found(Outcome),
    /// The provider never received a charge under this key.
    NotFound,
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

    /// Returns the breaker in front of this provider.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Sends a charge. Idempotent by its key: a repeat gets the first answer and charges nothing.
    pub async fn charge(&self, charge: &ChargeRequest) -> Result<Outcome, ProviderError> {
        let body = json!({
            "amount_minor": charge.amount.minor_units,
            "currency": charge.amount.currency.as_str(),
            "payment_method": charge.payment_method,
        });
        let answer = self.post("/v1/charges", &charge.key.to_string(), &body).await?;
        match answer.status {
            // Refused by the bank: nothing was captured.
            StatusCode::PAYMENT_REQUIRED => Ok(Outcome::Declined { code: code(Some(answer.error_code())) }),
            // With this status only an invalid payment method, which the buyer chose, is a decline.
            StatusCode::UNPROCESSABLE_ENTITY if answer.error_code() == INVALID_PAYMENT_METHOD => {
                Ok(Outcome::Declined { code: INVALID_PAYMENT_METHOD.to_owned() })
            }
            _ => answer.success_body::<ChargeAnswer>()?.into_outcome(),
        }
    }

    /// Looks up a charge by its key.
    pub async fn look_up(&self, key: AttemptKey) -> Result<LookUp, ProviderError> {
        let answer = self.get(&format!("/v1/charges/by-key/{key}")).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(LookUp::NotFound);
        }
        answer.success_body::<ChargeAnswer>()?.into_outcome().map(LookUp::Found)
    }

    /// Looks up a charge by its id at the provider; `None` if there is none.
    pub async fn look_up_charge(&self, charge_id: &str) -> Result<Option<ChargeRecord>, ProviderError> {
        let answer = self.get(&format!("/v1/charges/{}", path_segment(charge_id)?)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.success_body::<ChargeAnswer>()?.into_record().map(Some)
    }

    /// Looks up a refund by its key; `None` if the provider never received one under it.
    pub async fn look_up_refund(&self, refund: &Refund) -> Result<Option<RefundOutcome>, ProviderError> {
        let answer = self.get(&format!("/v1/refunds/by-key/{}", refund.key())).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.success_body::<RefundAnswer>()?.into_outcome(refund).map(Some)
    }

    /// Returns a page of all refunds of this account, oldest first, after the cursor `after`.
    pub async fn refunds_after(&self, after: Option<&str>) -> Result<RefundPage, ProviderError> {
        let after = after.map(path_segment).transpose()?.map(|after| format!("&after={after}")).unwrap_or_default();
        let answer = self.get(&format!("/v1/refunds?limit={MAX_REFUNDS_PER_PAGE}{after}")).await?;
        answer.success_body::<RefundListAnswer>()?.into_page()
    }

    /// Refunds a charge. Idempotent by its key: a repeat refunds nothing more.
    pub async fn refund(&self, refund: &Refund, charge_id: &str) -> Result<RefundOutcome, ProviderError> {
        let body = json!({"charge_id": charge_id, "amount_minor": refund.amount.minor_units});
        let answer = self.post("/v1/refunds", &refund.key().to_string(), &body).await?;
        answer.success_body::<RefundAnswer>()?.into_outcome(refund)
    }

    async fn get(&self, path: &str) -> Result<Answer, ProviderError> {
        self.send(Request::get(format!("{}{path}", self.base)).body(Full::default())).await
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
            return Err(ProviderError::BreakerOpen);
        }
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| unreachable(&error))?;
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
    /// Returns whether the provider fails or is busy, whatever the request.
    fn is_failure(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// Returns the body of a successful answer. Fails for any other status.
    fn success_body<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        if !self.status.is_success() {
            return Err(ProviderError::Refused { status: self.status, code: self.error_code() });
        }
        // The message of serde would quote the value, and it is logged.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            ProviderError::Unreadable(format!("at line {line}, column {column}"))
        })
    }

    fn error_code(&self) -> String {
        serde_json::from_slice(&self.body).map(ErrorAnswer::into_code).unwrap_or_default()
    }
}

/// Returns the error with its causes, which hyper-util leaves out of its message.
fn unreachable(error: &hyper_util::client::legacy::Error) -> ProviderError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    ProviderError::Unreachable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> ProviderError {
        ProviderError::Refused { status: StatusCode::from_u16(status).unwrap(), code: code.to_owned() }
    }

    #[test]
    fn what_is_refused_for_good_is_told_from_what_passes() {
        for passing in [
            refused(401, ""),
            refused(403, ""),
            refused(408, ""),
            refused(409, "idempotency_key_in_use"),
            refused(425, ""),
            refused(429, "too_many_requests"),
            refused(500, ""),
            refused(503, "too_busy"),
            ProviderError::BreakerOpen,
            ProviderError::TimedOut(IDLE),
            ProviderError::Unreachable(String::new()),
            ProviderError::Unreadable(String::new()),
        ] {
            assert_eq!(passing.doubt(), None, "{passing}");
        }
        for (status, code) in
            [(400, "malformed_request"), (404, ""), (409, KEY_REUSED), (422, "refund_exceeds_capture")]
        {
            let doubt = Doubt::Refused { status, code: code.to_owned() };
            assert_eq!(refused(status, code).doubt(), Some(doubt));
        }
    }

    #[test]
    fn only_plain_ids_stand_in_a_path() {
        assert_eq!(path_segment("ch_0000000001").unwrap(), "ch_0000000001");
        for odd in ["", "a/b", "a?b", "a b", "..", "ä", "a%2f"] {
            assert!(path_segment(odd).is_err(), "{odd}");
        }
    }
}
