//! Starts a sandbox and calls it.

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use stampede_sandbox::Config;
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Well over the time that any step of a test takes.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Sandbox {
    base: String,
    stop: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

/// Returns a directory for one journal.
pub fn journal_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

impl Sandbox {
    /// Starts one on the journal of this directory, quick in all that is slow by default.
    pub async fn start(dir: &TempDir, flags: &[&str]) -> Sandbox {
        let journal = dir.path().join("journal");
        let config = config(&journal, flags);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 can be bound");
        let base = format!("http://{}", listener.local_addr().expect("it is bound"));
        let stop = CancellationToken::new();
        let server = tokio::spawn(stampede_sandbox::serve(listener, config, stop.clone()));
        Sandbox { base, stop, server }
    }

    /// Stops it as a SIGTERM does.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await.expect("it stops cleanly");
    }

    /// Waits for its end. Returns the outcome.
    pub async fn ended(self) -> anyhow::Result<()> {
        let ended = timeout(STEP_TIMEOUT, self.server).await.expect("it ends in time");
        ended.expect("it does not panic")
    }

    pub async fn charge(&self, key: &str, amount_minor: i64, card: &str) -> (StatusCode, Value) {
        let body = json!({"amount_minor": amount_minor, "currency": "EUR", "payment_method": card});
        self.post("/v1/charges", Some(key), &body.to_string()).await
    }

    pub async fn refund(&self, key: &str, charge_id: &Value, amount_minor: i64) -> (StatusCode, Value) {
        let body = json!({"charge_id": charge_id, "amount_minor": amount_minor});
        self.post("/v1/refunds", Some(key), &body.to_string()).await
    }

    pub async fn post(&self, path: &str, key: Option<&str>, body: &str) -> (StatusCode, Value) {
        let mut request = Request::builder().method(Method::POST).uri(self.uri(path));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        send(request.body(Full::from(body.to_owned())).expect("a valid request")).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().uri(self.uri(path)).body(Full::default());
        send(request.expect("a valid request")).await
    }

    /// Polls a charge until it has this status.
    pub async fn wait_for_status(&self, key: &str, status: &str) -> Value {
        self.wait_for(&format!("/v1/charges/by-key/{key}"), status).await
    }

    /// Polls a refund until it has this status.
    pub async fn wait_for_refund(&self, key: &str, status: &str) -> Value {
        self.wait_for(&format!("/v1/refunds/by-key/{key}"), status).await
    }

    async fn wait_for(&self, path: &str, status: &str) -> Value {
        let started = Instant::now();
        loop {
            let (_, found) = self.get(path).await;
            if found["status"] == status {
                return found;
            }
            assert!(started.elapsed() < STEP_TIMEOUT, "{path} is not {status}, but {found}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

fn config(journal: &Path, flags: &[&str]) -> Config {
    let journal = journal.to_str().expect("a path in UTF-8");
    let mut args = vec!["sandbox", "--journal", journal, "--slow-ms", "150"];
    if !flags.contains(&"--late-ms") {
        args.extend(["--late-ms", "150"]);
    }
    args.extend(flags);
    Config::try_parse_from(args).expect("the flags are known")
}

async fn send(request: Request<Full<Bytes>>) -> (StatusCode, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = timeout(STEP_TIMEOUT, client.request(request)).await.expect("an answer in time");
    let answer = answer.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}
