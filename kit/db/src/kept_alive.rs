//! Keeps the connections of a pool that nobody uses.
//!
//! The server soon ends a connection that says nothing, since its process may stand still with rows locked, and it
//! makes no difference between one in a transaction and one that is merely unused. To open those again costs most when
//! a sale begins, so they are pinged: apart from the calls, and one at a time, so that no call waits for it.

use crate::pool::{self, Pool};
use std::time::Duration;
use tokio::{task::JoinHandle, time::sleep};

/// The task that pings. It ends when this is dropped.
#[derive(Debug)]
pub struct KeptAlive(JoinHandle<()>);

impl KeptAlive {
    /// Pings each unused connection of the pool once in `interval`, and closes one that does not answer in time. Needs
    /// a tokio runtime.
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
        ping_unused(&pool, answer_timeout).await;
    }
}

/// Pings them in turn: the pool hands out the one that was unused the longest, and takes it back as the last.
async fn ping_unused(pool: &Pool, answer_timeout: Duration) {
    for _ in 0..pool.unused() {
        let Ok(mut pooled) = pool.get_unused().await else { return };
        if pooled.answers(answer_timeout).await {
            pool::give_back(pooled);
        } else {
            pool::close(pooled);
        }
    }
}
