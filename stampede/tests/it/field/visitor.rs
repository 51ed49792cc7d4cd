//! A client of the gateway that says what it got, whatever that is.

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

/// What it got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
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

    /// Sends these bytes as JSON, or as what else this type says.
    pub async fn post(&self, path: &str, token: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(format!("{}{path}", self.url)).header(header::CONTENT_TYPE, content_type);
        self.send(request, token, body.into()).await
    }

    async fn send(&self, mut request: Builder, token: &str, body: Bytes) -> Answer {
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.http.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{status}: {error}: {body:?}"));
        Answer { status, json }
    }
}
