//! The operator, who makes the event that is watched, changes it, and ends it.

use crate::crowd::MAX_WAIT;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::{net::TcpStream, time::timeout};

/// When the event closes: after all times at which it opens.
const CLOSES: &str = "2099-01-01T00:00:00Z";

pub struct Operator {
    pub gateway: SocketAddr,
    pub token: String,
}

impl Operator {
    /// Makes an event that opens at this time. Returns its id.
    pub async fn create(&self, open_time: &str) -> anyhow::Result<String> {
        let item = json!({
            "title": "Watched", "unit_price": { "minor_units": "100", "currency": "EUR" },
            "total_units": 100, "limit_per_buyer": 1,
        });
        let event = json!({
            "request_id": format!("watchers-{}-{open_time}", std::process::id()), "name": "Watched",
            "open_time": open_time, "close_time": CLOSES, "items": [item],
        });
        let made = self.post("/v1/events", &event).await?;
        made["event_id"].as_str().map(str::to_owned).with_context(|| format!("an event without an id: {made}"))
    }

    /// Moves its opening.
    pub async fn reschedule(&self, event: &str, open_time: &str) -> anyhow::Result<()> {
        let times = json!({ "open_time": open_time, "close_time": CLOSES });
        self.post(&format!("/v1/events/{event}:reschedule"), &times).await.map(drop)
    }

    /// Ends it, and all streams about it.
    pub async fn cancel(&self, event: &str) -> anyhow::Result<()> {
        self.post(&format!("/v1/events/{event}:cancel"), &json!({})).await.map(drop)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let socket = TcpStream::connect(self.gateway).await.context("cannot connect to the gateway")?;
        let (mut line, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let request = Request::post(path)
            .header(header::HOST, self.gateway.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body.to_string()))?;
        let answer = timeout(MAX_WAIT, line.send_request(request)).await.context("the gateway does not answer")??;
        let status = answer.status();
        let answer = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path} is answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer)?)
    }
}
