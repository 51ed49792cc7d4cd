//! Keep-alive for the idle connections of a pool.
//!
//! The server soon ends a silent connection, since its process may be frozen with rows locked, and it does not tell one
//! in a transaction from an idle one. Opening them again costs most when a sale begins, so they are pinged: by a task
//! of its own and one at a time, so that no call waits for it.

use crate::pool::{self, Pool};
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// The task that pings. It ends when this is dropped.
#[derive(Debug)]
pub struct KeptAlive(JoinHandle<()>);

impl KeptAlive {
    /// Pings each idle connection of the pool once per `interval`, and closes one that does not answer in time. Needs a
    /// tokio runtime.
    pub fn spawn(pool: Pool, interval: Duration, answer_timeout: Duration) -> Self {
        Self(tokio::spawn(keep_alive(pool, interval, answer_timeout)))
    }
}

impl Drop for KeptAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_alive(pool: Pool, interval: Duration, answer_timeout: Duration) {
    loop {
        sleep(interval).await;
        ping_idle(&pool, answer_timeout).await;
    }
}

/// Pings them in turn: the pool is a queue, which returns the longest idle one and takes it back as the last.
async fn ping_idle(pool: &Pool, answer_timeout: Duration) {
    for _ in 0..pool.idle() {
        let taken_at = Instant::now();
        let Ok(mut pooled) = pool.get_idle().await else { return };
        // A dirty one was validated as it was taken, which is a ping too.
        if pooled.has_answered_since(taken_at) || pooled.ping(answer_timeout).await {
            pool::release(pooled);
        } else {
            pool::close(pooled);
        }
    }
}
