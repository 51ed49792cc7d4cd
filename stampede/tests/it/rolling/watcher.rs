//! A client that watches an event without end, and reconnects whenever its stream ends. Each stream has to end with a
//! reason: one that merely stops was cut.

use super::shopper::{Http, Seen};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Longest silence of a stream, which sends the time more often.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Pause before it reconnects; a browser waits for longer.
const PAUSE: Duration = Duration::from_millis(50);
/// The last events of a stream that a process had to end: the gateway leaves, or the service behind it.
const ENDS: [&str; 2] = ["drain", "problem"];

/// A client with connections of its own.
pub struct Watcher {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: http::Uri,
    seen: Seen,
}

impl Watcher {
    /// A client of the gateways at this URL.
    pub fn of(url: &str, event_id: &str, http: Http) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http == Http::Two).build_http();
        let uri = format!("{url}/v1/events:watch?event_ids={event_id}").parse().unwrap();
        Self { client, uri, seen: Seen::default() }
    }

    /// Watches until it is stopped. Returns its results; its answers are the streams that have ended.
    pub async fn watch(mut self, mut stop: watch::Receiver<bool>) -> Seen {
        while !*stop.borrow() {
            let outcome = tokio::select! {
                outcome = self.read_to_the_end() => outcome,
                _ = stop.changed() => break,
            };
            self.seen.answers += 1;
            self.seen.faults.extend(outcome.err());
            sleep(PAUSE).await;
        }
        self.seen
    }

    async fn read_to_the_end(&self) -> Result<(), String> {
        let answer = self.client.get(self.uri.clone()).await.map_err(|error| format!("no stream: {error:?}"))?;
        if answer.status() != 200 {
            return Err(format!("a stream is answered with {}", answer.status()));
        }
        let (mut body, mut text) = (answer.into_body(), String::new());
        loop {
            let frame = timeout(LONGEST_SILENCE, body.frame()).await.map_err(|_| "a stream is silent".to_owned())?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| format!("a stream is cut: {error:?}"))?;
            if let Some(data) = frame.data_ref() {
                text.push_str(&String::from_utf8_lossy(data));
            }
        }
        let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let kind = last.lines().find_map(|line| line.strip_prefix("event: ")).unwrap_or("message");
        if ENDS.contains(&kind) { Ok(()) } else { Err(format!("a stream ends with a {kind}: {last}")) }
    }
}
