//! The task that loads. Must not stop for a load that fails, hangs or panics.

use crate::registry::Registry;
use anyhow::Context;
use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Timeout of a load; it is tried again after a period.
const LOAD_DEADLINE: Duration = Duration::from_secs(5);

/// Loads the watched keys once a period, until the task is dropped.
pub(crate) async fn run<K, V, F, Fut>(registry: Arc<Registry<K, V>>, period: Duration, load: F)
where
    K: Eq + Hash + Clone + Send + 'static,
    V: PartialEq + Send + 'static,
    F: Fn(Vec<K>) -> Fut,
    Fut: Future<Output = anyhow::Result<HashMap<K, V>>> + Send + 'static,
{
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    let mut failures = 0_u32;
    loop {
        registry.watched().await;
        ticks.tick().await;
        let (keys, newcomers) = registry.begin_load();
        // Kept across failed loads, until one succeeds.
        waiting.extend(newcomers);
        if keys.is_empty() {
            waiting.clear();
            continue;
        }
        let loaded = guarded(load(keys)).await;
        log_change(&loaded, &mut failures);
        if let Ok(values) = loaded {
            registry.publish(values);
            // After the values are published: a new watcher reads as soon as it is notified.
            for newcomer in waiting.drain(..) {
                // The watcher may be gone.
                let _ = newcomer.send(());
            }
        }
    }
}

/// Runs a load on a task of its own, so that a panic counts as a failed load.
async fn guarded<T: Send + 'static>(
    load: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let task = AbortOnDropHandle::new(tokio::spawn(load));
    timeout(LOAD_DEADLINE, task).await.context("no answer within 5 s")?.context("panicked")?
}

/// Logs the first of a series of failures and its end, so that an outage does not fill the log.
fn log_change<T>(loaded: &anyhow::Result<T>, failures: &mut u32) {
    match loaded {
        Err(error) if *failures == 0 => {
            tracing::warn!(error.cause = format!("{error:#}"), "watchers get nothing new: load failed");
            *failures = 1;
        }
        Err(_) => *failures = failures.saturating_add(1),
        Ok(_) if *failures > 0 => {
            tracing::info!(failed_load.count = *failures, "watchers are served again");
            *failures = 0;
        }
        Ok(_) => {}
    }
}
