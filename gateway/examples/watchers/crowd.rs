//! The watchers: who of them was told of what, and how long after it was asked for.

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
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a wait looks.
const TICK: Duration = Duration::from_millis(10);
/// What ends one event of a stream.
const EVENT_END: &[u8] = b"\n\n";

/// What all watchers share. A change is known by its number; number 0 is how the event is at first.
pub struct Crowd {
    /// What a message says that tells of each change.
    marks: Vec<String>,
    /// When each was asked for.
    asked: Vec<OnceLock<Instant>>,
    /// How long after that each watcher was told.
    told: Vec<Mutex<Vec<Duration>>>,
    /// What happened to the first stream that did not open, or ended.
    failure: OnceLock<String>,
}

impl Crowd {
    /// Watchers of an event that opens at the first of these times, and is moved to the others one after another.
    pub fn of(times: &[String]) -> Self {
        Self {
            // How a fraction of zero seconds is written does not matter.
            marks: times.iter().map(|time| format!("\"open_time\":\"{}", time.trim_end_matches('Z'))).collect(),
            asked: times.iter().map(|_| OnceLock::new()).collect(),
            told: times.iter().map(|_| Mutex::default()).collect(),
            failure: OnceLock::new(),
        }
    }

    /// Counts the time of a change from now on.
    pub fn ask(&self, change: usize) {
        self.asked[change].get_or_init(Instant::now);
    }

    /// How long it took to tell each of so many watchers of a change, the quickest first.
    pub async fn until_told(&self, change: usize, watchers: usize) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut told = self.told(change).clone();
            if told.len() >= watchers {
                told.sort_unstable();
                return Ok(told);
            }
            if self.failure.get().is_some() || Instant::now() > end {
                let what = format!("of {watchers} watchers {} were told of change {change}", told.len());
                bail!(self.trouble(&what));
            }
            sleep(TICK).await;
        }
    }

    /// Something that went wrong, with the reason as far as it is known.
    pub fn trouble(&self, what: &str) -> String {
        format!("{what}: {}", self.failure.get().map_or("the rest is silent", String::as_str))
    }

    /// One watcher, to the end of its stream. The permit is given back once that is open.
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
                self.tell(next);
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

    fn tell(&self, change: usize) {
        let took = self.asked[change].get().map_or(Duration::ZERO, Instant::elapsed);
        self.told(change).push(took);
    }

    /// Nothing under this lock can panic.
    fn told(&self, change: usize) -> MutexGuard<'_, Vec<Duration>> {
        self.told[change].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
