//! Background workers (consumers, sweeps, relays), and the gates that the process waits for until it
//! is ready.
//!
//! A worker that fails or panics ends the process: a process that half works is worse than one
//! that is started again.

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

/// Least time of each stage to stop, even if the calls took all the time there was.
const LEAST_STAGE_TIME: Duration = Duration::from_secs(1);

/// When a worker is stopped, in this order, after the calls have drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Takes in work: consumers and sweeps. What it writes must still be sent.
    Consumer,
    /// Sends what the others wrote.
    Relay,
}

/// The workers and the readiness of one process. Clones share them.
#[derive(Clone, Default)]
pub struct Workers {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    consumers: Crew,
    relays: Crew,
    draining: CancellationToken,
    gates: Arc<watch::Sender<Gates>>,
    notes: Arc<watch::Sender<Gates>>,
    failure: watch::Sender<Option<String>>,
}

/// Whether each thing the process waits for is there.
pub(crate) type Gates = BTreeMap<&'static str, bool>;

#[derive(Default)]
struct Crew {
    stop: CancellationToken,
    running: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Workers {
    /// No workers, and nothing to wait for.
    pub fn new() -> Workers {
        Workers::default()
    }

    /// Runs a worker on a task of its own. It must return soon after the token it is given is
    /// cancelled; until then it may only return if it has nothing left to do, ever.
    pub fn spawn<F, Fut>(&self, stage: Stage, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let crew = self.crew(stage);
        let work = AssertUnwindSafe(work(crew.stop.clone())).catch_unwind();
        let workers = self.clone();
        let task = tokio::spawn(async move {
            match work.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => workers.fail(format!("worker {name} failed: {error:#}")),
                Err(_) => workers.fail(format!("worker {name} panicked")),
            }
        });
        crew.running.lock().unwrap_or_else(PoisonError::into_inner).push((name, task));
    }

    /// Adds something the process waits for. It starts closed; the process is ready while all
    /// gates are open.
    pub fn gate(&self, name: &'static str) -> ReadyGate {
        let gate = ReadyGate { name, gates: self.inner.gates.clone() };
        gate.close();
        gate
    }

    /// Adds something that `/readyz` speaks of and that the process does not wait for: calls are answered without it.
    /// It starts closed.
    pub fn note(&self, name: &'static str) -> ReadyGate {
        let note = ReadyGate { name, gates: self.inner.notes.clone() };
        note.close();
        note
    }

    /// Cancelled when the process has begun to leave. A stream may end itself then; one that does
    /// not is ended with `UNAVAILABLE` as soon as it has nothing to send.
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// The state of all gates.
    pub(crate) fn gates(&self) -> watch::Receiver<Gates> {
        self.inner.gates.subscribe()
    }

    /// The state of all notes.
    pub(crate) fn notes(&self) -> watch::Receiver<Gates> {
        self.inner.notes.subscribe()
    }

    /// Returns whether the process may be called: it is not draining and all gates are open.
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

    /// Stops the workers of one stage and waits for them; those that take too long are dropped.
    /// Stops every stage in its turn. Each has a moment of its own, even after the deadline.
    pub(crate) async fn stop_all(&self, deadline: Instant) {
        for stage in [Stage::Consumer, Stage::Relay] {
            self.stop(stage, deadline.max(Instant::now() + LEAST_STAGE_TIME)).await;
        }
    }

    async fn stop(&self, stage: Stage, deadline: Instant) {
        let crew = self.crew(stage);
        crew.stop.cancel();
        let running = std::mem::take(&mut *crew.running.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, mut task) in running {
            if timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!(worker.name = name, "worker did not stop in time and is dropped");
                task.abort();
            }
        }
    }

    fn crew(&self, stage: Stage) -> &Crew {
        match stage {
            Stage::Consumer => &self.inner.consumers,
            Stage::Relay => &self.inner.relays,
        }
    }

    fn fail(&self, message: String) {
        tracing::error!("{message}");
        self.inner.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(message);
            is_first
        });
    }
}

/// One thing the process waits for.
#[derive(Clone)]
pub struct ReadyGate {
    name: &'static str,
    gates: Arc<watch::Sender<Gates>>,
}

impl ReadyGate {
    /// It is there.
    pub fn open(&self) {
        self.set(true);
    }

    /// It is not there, or no longer.
    pub fn close(&self) {
        self.set(false);
    }

    fn set(&self, open: bool) {
        self.gates.send_if_modified(|gates| gates.insert(self.name, open) != Some(open));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
