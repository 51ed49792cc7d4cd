//! The watchers, and the latency of each change for each of them.

use crate::line::Line;
use anyhow::{bail, ensure};
use http::StatusCode;
use http_body_util::BodyExt;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

/// Longest wait for anything.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// Poll interval of a wait.
const TICK: Duration = Duration::from_millis(10);
/// The end of an event of a stream.
const EVENT_END: &[u8] = b"\n\n";

/// The state that all watchers share. A change is known by its number; number 0 is the event at first.
pub struct Crowd {
    /// The part of a message that shows each change.
    marks: Vec<String>,
    /// When each change was requested.
    requested: Vec<OnceLock<Instant>>,
    /// The latencies of each change, one a watcher.
    latencies: Vec<Mutex<Vec<Duration>>>,
    /// The failure of the first stream that did not open, or ended.
    failure: OnceLock<String>,
}

impl Crowd {
    /// Returns the watchers of an event that opens at the first of these times, and is moved to the others one after
    /// another.
    pub fn of(times: &[String]) -> Self {
        Self {
            // How a fraction of zero seconds is written does not matter.
            marks: times.iter().map(|time| format!("\"open_time\":\"{}", time.trim_end_matches('Z'))).collect(),
            requested: times.iter().map(|_| OnceLock::new()).collect(),
            latencies: times.iter().map(|_| Mutex::default()).collect(),
            failure: OnceLock::new(),
        }
    }

    /// Counts the time of a change from now on.
    pub fn request(&self, change: usize) {
        self.requested[change].get_or_init(Instant::now);
    }

    /// Waits until so many watchers have a change. Returns their latencies, the shortest first.
    pub async fn wait_for(&self, change: usize, watchers: usize) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + MAX_WAIT;
        loop {
            let mut latencies = self.latencies(change).clone();
            if latencies.len() >= watchers {
                latencies.sort_unstable();
                return Ok(latencies);
            }
            if self.failure.get().is_some() || Instant::now() > end {
                let what = format!("of {watchers} watchers {} have change {change}", latencies.len());
                bail!(self.trouble(&what));
            }
            sleep(TICK).await;
        }
    }

    /// Describes a failure, with the reason as far as it is known.
    pub fn trouble(&self, what: &str) -> String {
        format!("{what}: {}", self.failure.get().map_or("the rest is silent", String::as_str))
    }

    /// Runs one watcher, to the end of its stream. The permit is given back once that is open.
    pub async fn watch(self: Arc<Self>, mut line: Line, path: Arc<str>, permit: OwnedSemaphorePermit) {
        if let Err(error) = self.follow(&mut line, &path, permit).await {
            self.failure.get_or_init(|| format!("{error:#}"));
        }
    }

    async fn follow(&self, line: &mut Line, path: &str, permit: OwnedSemaphorePermit) -> anyhow::Result<()> {
        let (head, mut body) = line.get(path).await?.into_parts();
        if head.status != StatusCode::OK {
            let text = body.collect().await?.to_bytes();
            bail!("a stream is refused with {}: {}", head.status, String::from_utf8_lossy(&text));
        }
        let (mut permit, mut next, mut text) = (Some(permit), 0, Vec::<u8>::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            text.extend_from_slice(&data);
            while self.marks.get(next).is_some_and(|mark| String::from_utf8_lossy(&text).contains(mark)) {
                self.record(next);
                next += 1;
                drop(permit.take());
            }
            if text.ends_with(EVENT_END) {
                text.clear();
            }
        }
        // The event is cancelled after its last change.
        ensure!(next == self.marks.len(), "a stream has ended");
        Ok(())
    }

    fn record(&self, change: usize) {
        let took = self.requested[change].get().map_or(Duration::ZERO, Instant::elapsed);
        self.latencies(change).push(took);
    }

    /// Nothing under this lock can panic.
    fn latencies(&self, change: usize) -> MutexGuard<'_, Vec<Duration>> {
        self.latencies[change].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
