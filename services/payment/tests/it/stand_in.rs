//! A provider that answers what a test has said, over HTTP: also what the sandbox never does.

use crate::sale::{Order, PRICE, PROVIDER_TIMEOUT, Sale};
use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use stampede_testkit::{MeshBuilder, Service};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What can be asked of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    Charge,
    ChargeByKey,
    ChargeById,
    Refund,
    RefundByKey,
    Refunds,
}

type Answer = (StatusCode, Value);

#[derive(Debug, Default)]
struct Script {
    answers: HashMap<Ask, Answer>,
    /// Of these keys, in place of the answers to all.
    of_key: HashMap<(Ask, String), Answer>,
    /// Until when the next answer for these keys waits: until the sender is dropped.
    held: HashMap<(Ask, String), oneshot::Receiver<()>>,
    /// What was asked, with its key or id.
    asked: Vec<(Ask, String)>,
}

/// The provider. It ends when it is dropped.
pub struct StandIn {
    script: Arc<Mutex<Script>>,
    url: String,
    _server: DropGuard,
}

impl StandIn {
    /// Starts one of which every charge is pending.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(script.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        let provider = Self { script, url, _server: stop.drop_guard() };
        provider.says(Ask::Charge, 202, charge("pending", PRICE));
        provider.says(Ask::ChargeByKey, 200, charge("pending", PRICE));
        provider.says(Ask::Refunds, 200, json!({"refunds": [], "has_more": false}));
        Ok(provider)
    }

    /// A sale that is charged by this provider, with these settings besides. It is waited for while the machine stands
    /// still: a test counts how often it is asked.
    pub async fn open(&self, settings: MeshBuilder) -> Result<Sale> {
        let settings = settings.set(Service::Payment, "STAMPEDE_PROVIDER_URL", &self.url);
        Sale::open_with(settings.set(Service::Payment, PROVIDER_TIMEOUT, 10_000)).await
    }

    /// Answers so from now on.
    pub fn says(&self, ask: Ask, status: u16, body: Value) {
        let answer = (StatusCode::from_u16(status).expect("a status"), body);
        self.script().answers.insert(ask, answer);
    }

    /// Answers so from now on where it is asked for this key or id.
    pub fn says_of(&self, ask: Ask, key: &str, status: u16, body: Value) {
        let answer = (StatusCode::from_u16(status).expect("a status"), body);
        self.script().of_key.insert((ask, key.to_owned()), answer);
    }

    /// Keeps the next answer for this key or id until what is returned is dropped.
    pub fn holds(&self, ask: Ask, key: &str) -> oneshot::Sender<()> {
        let (answers, held) = oneshot::channel();
        self.script().held.insert((ask, key.to_owned()), held);
        answers
    }

    /// Has captured the first attempt of this order.
    pub fn has_captured(&self, order: &Order, charge_id: &str) {
        let mut body = charge("captured", PRICE);
        body["id"] = json!(charge_id);
        self.says_of(Ask::ChargeByKey, &charge_key(order), 200, body);
    }

    /// How often it was asked this for this key or id.
    pub fn asked(&self, ask: Ask, key: &str) -> usize {
        self.script().asked.iter().filter(|(asked, of)| *asked == ask && of == key).count()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().expect("nobody panics with it")
    }
}

/// The key of the first charge of an order.
pub fn charge_key(order: &Order) -> String {
    format!("{}:1", order.payment_id())
}

/// The key of the refund of that.
pub fn refund_key(order: &Order) -> String {
    format!("{}:refund", charge_key(order))
}

/// A charge as the provider shows it.
pub fn charge(status: &str, amount_minor: i64) -> Value {
    json!({"id": "ch_1", "status": status, "amount_minor": amount_minor, "currency": "EUR"})
}

/// A refund as the provider shows it.
pub fn refund(status: &str, amount_minor: i64) -> Value {
    json!({"id": "re_1", "charge_id": "ch_1", "status": status, "amount_minor": amount_minor, "currency": "EUR"})
}

pub fn refusal(code: &str) -> Value {
    json!({"error": {"code": code, "message": "refused"}})
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let Some((ask, key)) = what(&request) else { return StatusCode::IM_A_TEAPOT.into_response() };
    let held = {
        let mut script = script.lock().expect("nobody panics with it");
        script.asked.push((ask, key.clone()));
        script.held.remove(&(ask, key.clone()))
    };
    if let Some(held) = held {
        held.await.ok();
    }
    let script = script.lock().expect("nobody panics with it");
    let found = script.of_key.get(&(ask, key)).or_else(|| script.answers.get(&ask)).cloned();
    let (status, body) = found.unwrap_or_else(|| (StatusCode::NOT_FOUND, refusal("not_found")));
    (status, Json(body)).into_response()
}

fn what(request: &Request) -> Option<(Ask, String)> {
    let path = request.uri().path();
    if request.method() == Method::POST {
        let key = request.headers().get("idempotency-key")?.to_str().ok()?.to_owned();
        return match path {
            "/v1/charges" => Some((Ask::Charge, key)),
            "/v1/refunds" => Some((Ask::Refund, key)),
            _ => None,
        };
    }
    if path == "/v1/refunds" {
        return Some((Ask::Refunds, String::new()));
    }
    let (before, last) = path.rsplit_once('/')?;
    let ask = match before {
        "/v1/charges/by-key" => Ask::ChargeByKey,
        "/v1/charges" => Ask::ChargeById,
        "/v1/refunds/by-key" => Ask::RefundByKey,
        _ => return None,
    };
    Some((ask, last.to_owned()))
}
