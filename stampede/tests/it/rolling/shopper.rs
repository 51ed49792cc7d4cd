//! A client that buys without end, over HTTP/1.1 or HTTP/2, and tolerates no error. It sends every request once: hyper
//! retries only those that were never written to a connection.

use crate::sale::fresh;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Longest wait for an answer; the gateway gives up before.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two rounds: the restart is under test, and not the machine.
const PAUSE: Duration = Duration::from_millis(50);

/// The version of HTTP of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// The event and the campaign.
#[derive(Debug, Clone)]
pub struct Goods {
    pub event_id: String,
    pub item_id: String,
    pub campaign_id: String,
}

/// The results of a client.
#[derive(Debug, Default)]
pub struct Seen {
    pub answers: usize,
    /// The order of each request_id.
    pub orders: BTreeMap<String, String>,
    pub faults: Vec<String>,
}

/// A client with connections of its own.
pub struct Shopper {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    bearer: Option<HeaderValue>,
    pub seen: Seen,
}

impl Shopper {
    /// A client of the gateways at this URL.
    pub fn of(url: String, http: Http) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http == Http::Two).build_http();
        Self { client, url, bearer: None, seen: Seen::default() }
    }

    /// The same with this token.
    pub fn bearing(self, token: &str) -> Self {
        Self { bearer: Some(format!("Bearer {token}").parse().unwrap()), ..self }
    }

    /// The same as a new buyer.
    pub async fn logged_in(mut self) -> Self {
        let pair = self.post("/v1/auth/tokens", &json!({})).await.unwrap();
        let token = pair["access_token"].as_str().unwrap().to_owned();
        self.bearing(&token)
    }

    /// Buys until it is stopped. Returns its results.
    pub async fn shop(mut self, goods: Goods, stop: watch::Receiver<bool>) -> Seen {
        while !*stop.borrow() {
            self.look(&goods).await;
            self.buy(&goods).await;
            sleep(PAUSE).await;
        }
        self.seen
    }

    /// Reads from every service.
    async fn look(&mut self, Goods { event_id, campaign_id, .. }: &Goods) {
        self.get(&format!("/v1/events/{event_id}")).await;
        self.get(&format!("/v1/events/{event_id}/stock")).await;
        self.get(&format!("/v1/campaigns/{campaign_id}")).await;
        self.get("/v1/payments?page_size=1").await;
    }

    /// Places an order twice, under one name, and pays it.
    async fn buy(&mut self, goods: &Goods) {
        let Some(order_id) = self.place(goods).await else { return };
        let payment = json!({"request_id": fresh(), "payment_method": "pm_card_ok"});
        self.post(&format!("/v1/orders/{order_id}:pay"), &payment).await;
        self.get(&format!("/v1/orders/{order_id}")).await;
    }

    /// Places an order for one unit, twice. Returns its id.
    pub async fn place(&mut self, Goods { event_id, item_id, .. }: &Goods) -> Option<String> {
        let lines = json!([{"item_id": item_id, "units": 1}]);
        let wish = json!({"request_id": fresh(), "event_id": event_id, "lines": lines});
        let first = self.post("/v1/orders", &wish).await?;
        let order_id = first["order_id"].as_str().unwrap().to_owned();
        self.seen.orders.insert(wish["request_id"].to_string(), order_id.clone());
        let again = self.post("/v1/orders", &wish).await?;
        if again["order_id"] != order_id.as_str() {
            self.seen.faults.push(format!("{order_id} is {} when it is placed again", again["order_id"]));
        }
        Some(order_id)
    }

    pub async fn get(&mut self, path: &str) -> Option<Value> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Option<Value> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    /// Returns the answer, or records the error.
    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Option<Value> {
        let answer = timeout(ANSWER_DEADLINE, self.send(method.clone(), path, body)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_DEADLINE:?}")));
        self.seen.answers += 1;
        answer.map_err(|fault| self.seen.faults.push(format!("{method} {path}: {fault}"))).ok()
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Value, String> {
        let uri = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(body)).unwrap();
        let answer = self.client.request(request).await.map_err(|error| format!("no answer: {error:?}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| format!("{status} is cut: {error:?}"))?;
        let body = body.to_bytes();
        let json = serde_json::from_slice(&body).map_err(|error| format!("{status} is no JSON: {error}"))?;
        if status.is_success() { Ok(json) } else { Err(format!("{status}: {json}")) }
    }
}
