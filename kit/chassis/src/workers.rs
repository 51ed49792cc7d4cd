//! Background workers (consumers, sweeps, relays), and the readiness gates of the process.
//!
//! A worker that fails or panics ends the process: a restart is better than a process that half works.

use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Shortest time that each stage gets to stop, even after the deadline of the drain.
const LEAST_STAGE_TIME: Duration = Duration::from_secs(1);

/// Order in which workers are stopped, after the calls have drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes in work: consumers and sweeps. Their messages must still be sent.
    Consumer,
    /// Sends the messages of the others.
    Relay,
}

/// The workers and the readiness of one process. Clones share them.
#[derive(Clone, Default)]
pub struct Workers {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    consumers: StageWorkers,
    relays: StageWorkers,
    draining: CancellationToken,
    gates: Arc<watch::Sender<Gates>>,
    notes: Arc<watch::Sender<Gates>>,
    failure: watch::Sender<Option<String>>,
}

/// Whether each gate is open.
pub(crate) type Gates = BTreeMap<&'static str, bool>;

#[derive(Default)]
struct StageWorkers {
    stop: CancellationToken,
    running: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Workers {
    /// Returns a process without workers and gates.
    pub fn new() -> Workers {
        Workers::default()
    }

    /// Spawns a worker. It must return soon after its token is cancelled, and may return earlier only if it has no more
    /// work, ever.
    pub fn spawn<F, Fut>(&self, stage: Stage, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let group = self.workers(stage);
        let work = AssertUnwindSafe(work(group.stop.clone())).catch_unwind();
        let workers = self.clone();
        let task = tokio::spawn(async move {
            match work.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => workers.fail(format!("worker {name} failed: {error:#}")),
                Err(_) => workers.fail(format!("worker {name} panicked")),
            }
        });
        group.running.lock().unwrap_or_else(PoisonError::into_inner).push((name, task));
    }

    /// Adds a gate, closed at first. The process is ready while all gates are open.
    pub fn gate(&self, name: &'static str) -> ReadyGate {
        let gate = ReadyGate { name, gates: self.inner.gates.clone() };
        gate.close();
        gate
    }

    /// Adds a note, closed at first. `/readyz` reports it, but it does not affect readiness.
    pub fn note(&self, name: &'static str) -> ReadyGate {
        let note = ReadyGate { name, gates: self.inner.notes.clone() };
        note.close();
        note
    }

    /// Returns a token that is cancelled when the drain begins. A stream may end itself then; others end with
    /// `UNAVAILABLE` as soon as they are idle.
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Returns the state of all gates.
    pub(crate) fn gates(&self) -> watch::Receiver<Gates> {
        self.inner.gates.subscribe()
    }

    /// Returns the state of all notes.
    pub(crate) fn notes(&self) -> watch::Receiver<Gates> {
        self.inner.notes.subscribe()
    }

    /// Returns whether the process is ready: it is not draining and all gates are open.
    pub(crate) fn is_ready(&self) -> bool {
        !self.inner.draining.is_cancelled() && self.inner.gates.borrow().values().all(|open| *open)
    }

    /// Waits for the first worker to fail.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        let mut failure = self.inner.failure.subscribe();
        match failure.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(message)) => anyhow::anyhow!("{message}"),
            _ => unreachable!("the sender lives in self, and the value waited for is there"),
        }
    }

    /// Stops the workers stage by stage, and waits for each stage. Aborts workers that take too long.
    pub(crate) async fn stop_all(&self, deadline: Instant) {
        for stage in [Stage::Consumer, Stage::Relay] {
            self.stop(stage, deadline.max(Instant::now() + LEAST_STAGE_TIME)).await;
        }
    }

    async fn stop(&self, stage: Stage, deadline: Instant) {
        let group = self.workers(stage);
        group.stop.cancel();
        let running = std::mem::take(&mut *group.running.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, mut task) in running {
            if timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!(worker.name = name, "worker did not stop in time and is dropped");
                task.abort();
            }
        }
    }

    fn workers(&self, stage: Stage) -> &StageWorkers {
        match stage {
            Stage::Consumer => &self.inner.consumers,
            Stage::Relay => &self.inner.relays,
        }
    }

    fn fail(&self, message: String) {
        tracing::error!(error.cause = message, "a worker failed");
        self.inner.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(message);
            is_first
        });
    }
}

/// A readiness gate.
#[derive(Clone)]
pub struct ReadyGate {
    name: &'static str,
    gates: Arc<watch::Sender<Gates>>,
}

impl ReadyGate {
    /// Opens the gate.
    pub fn open(&self) {
        self.set(true);
    }

    /// Closes the gate.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        self.gates.send_if_modified(|gates| gates.insert(self.name, open) != Some(open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test]
    async fn a_process_is_ready_while_all_gates_are_open() {
        let workers = Workers::new();
        assert!(workers.is_ready(), "nothing to wait for");
        let (redis, kafka) = (workers.gate("redis"), workers.gate("kafka"));
        assert!(!workers.is_ready());
        redis.open();
        assert!(!workers.is_ready());
        kafka.open();
        assert!(workers.is_ready());
        redis.close();
        assert!(!workers.is_ready());
    }

    #[tokio::test]
    async fn a_note_is_told_and_not_waited_for() {
        let workers = Workers::new();
        let consumer = workers.note("consumer");
        assert!(workers.is_ready());
        assert_eq!(workers.notes().borrow().get("consumer"), Some(&false));
        consumer.open();
        assert_eq!(workers.notes().borrow().get("consumer"), Some(&true));
    }

    #[tokio::test]
    async fn a_draining_process_is_not_ready() {
        let workers = Workers::new();
        workers.draining().cancel();
        assert!(!workers.is_ready());
    }

    #[tokio::test]
    async fn the_first_worker_that_fails_is_reported() {
        let workers = Workers::new();
        workers.spawn(Stage::Consumer, "sweep", |_| async { anyhow::bail!("no such table") });
        assert_eq!(workers.failed().await.to_string(), "worker sweep failed: no such table");
        workers.spawn(Stage::Relay, "relay", |_| async { panic!("a bug") });
        workers.stop(Stage::Relay, soon()).await;
        assert!(workers.failed().await.to_string().contains("sweep"));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let workers = Workers::new();
        workers.spawn(Stage::Relay, "relay", |_| async { panic!("a bug") });
        assert_eq!(workers.failed().await.to_string(), "worker relay panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_is_waited_for_but_not_for_ever() {
        let workers = Workers::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        workers.spawn(Stage::Consumer, "tidy", |stop| async move {
            stop.cancelled().await;
            let _ = done.send(());
            Ok(())
        });
        workers.spawn(Stage::Consumer, "deaf", |_| std::future::pending());
        workers.spawn(Stage::Relay, "other", |stop| async move {
            stop.cancelled().await;
            anyhow::bail!("was stopped too early")
        });
        let started = Instant::now();
        workers.stop(Stage::Consumer, soon()).await;
        assert!(finished.await.is_ok());
        assert_eq!(started.elapsed().as_secs(), 1);
        assert!(workers.failed().now_or_never().is_none());
    }
}
