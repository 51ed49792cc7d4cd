//! One purchase by curl through the published port, as the README has it: from the operator's event to the goods.

use crate::{containers::docker::Project, shell};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for the effect of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Buys two lanterns, pays, and waits for the goods. Returns the order's id.
pub fn buy(project: &Project, gateway: &str) -> anyhow::Result<String> {
    let operator = project.output(&["exec", "-T", "gateway", "/usr/bin/stampede", "token", "--role", "operator"])?;
    let http = Http { gateway: gateway.to_owned() };
    let pair = http.post("/v1/auth/tokens", None, &json!({}))?;
    let buyer = text(&pair, "/access_token")?;
    let now = |offset: &str| shell::quiet(Command::new("date").args(["-u", "-d", offset, "+%FT%TZ"]));
    let event = http.post(
        "/v1/events",
        Some(&operator),
        &json!({
            "request_id": "compose-test",
            "name": "A walk through Stampede",
            "open_time": now("+8 seconds")?.trim(),
            "close_time": now("+1 hour")?.trim(),
            "items": [{
                "title": "Lantern",
                "unit_price": {"minor_units": "1999", "currency": "EUR"},
                "total_units": 100,
                "limit_per_buyer": 2,
                "gift": {"title": "Matches", "total_units": 10},
            }],
        }),
    )?;
    let (event_id, item_id) = (text(&event, "/event_id")?, text(&event, "/items/0/item_id")?);
    let place =
        json!({"request_id": "compose-test", "event_id": event_id, "lines": [{"item_id": item_id, "units": 2}]});
    let order = until("the order is taken", || {
        let placed = http.post("/v1/orders", Some(&buyer), &place)?;
        Ok(placed.pointer("/order_id").and_then(Value::as_str).map(str::to_owned))
    })?;
    let seen = |state: &'static str| {
        let (http, buyer, path) = (&http, &buyer, format!("/v1/orders/{order}"));
        move || Ok((http.get(&path, buyer)?["state"] == state).then_some(()))
    };
    let pay = json!({"request_id": "compose-test", "payment_method": "pm_card_ok"});
    http.post(&format!("/v1/orders/{order}:pay"), Some(&buyer), &pay)?;
    until("the order is fulfilled", seen("ORDER_STATE_FULFILLED"))?;
    Ok(order)
}

struct Http {
    gateway: String,
}

impl Http {
    fn get(&self, path: &str, token: &str) -> anyhow::Result<Value> {
        self.call(path, Some(token), None)
    }

    fn post(&self, path: &str, token: Option<&str>, body: &Value) -> anyhow::Result<Value> {
        self.call(path, token, Some(body))
    }

    /// Returns the answer's JSON, whatever its status: a problem has a `reason`.
    fn call(&self, path: &str, token: Option<&str>, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10"]).arg(format!("{}{path}", self.gateway));
        if let Some(token) = token {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        if let Some(body) = body {
            curl.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let said = shell::quiet(&mut curl)?;
        serde_json::from_str(&said).with_context(|| format!("{path} answers no JSON: {said}"))
    }
}

fn text(answer: &Value, pointer: &str) -> anyhow::Result<String> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("the answer has no {pointer}: {answer}"))
}

fn until<T>(what: &str, mut poll: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        if let Some(found) = poll()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {} s: {what}", STEP_TIMEOUT.as_secs());
        }
        crate::interrupt::check()?;
        thread::sleep(Duration::from_millis(200));
    }
}
