//! A client of the gateway that returns every answer as it is.

use bytes::Bytes;
use http::{Request, StatusCode, header, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// A client of one server.
pub struct Visitor {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Whether it has a Retry-After.
    pub says_when: bool,
    pub json: Value,
}

impl Visitor {
    /// A client of the server at this URL.
    pub fn of(url: String) -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http(), url }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Request::get(format!("{}{path}", self.url)), token, Bytes::new()).await
    }

    /// Sends these bytes as JSON, or as the given media type.
    pub async fn post(&self, path: &str, token: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(format!("{}{path}", self.url)).header(header::CONTENT_TYPE, content_type);
        self.send(request, token, body.into()).await
    }

    async fn send(&self, mut request: Builder, token: &str, body: Bytes) -> Answer {
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.http.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let (status, says_when) = (answer.status(), answer.headers().contains_key(header::RETRY_AFTER));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{status}: {error}: {body:?}"));
        Answer { status, says_when, json }
    }

    /// The first message of a stream of server-sent events.
    pub async fn first_of(&self, path: &str) -> Value {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default()).unwrap();
        let answer = self.http.request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let (mut body, mut read) = (answer.into_body(), Vec::new());
        loop {
            let frame = body.frame().await.unwrap_or_else(|| panic!("{path} ends without a message")).unwrap();
            read.extend_from_slice(&frame.into_data().unwrap());
            if let Some(message) = first_message(&read) {
                return message;
            }
        }
    }
}

/// The first message, once it is complete. Named events, such as the time, are skipped.
fn first_message(read: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(read);
    let whole = text.rsplit_once("\n\n")?.0;
    let message = whole.split("\n\n").find(|block| !block.lines().any(|line| line.starts_with("event:")))?;
    let data = message.lines().find_map(|line| line.strip_prefix("data:"))?;
    Some(serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
}
