//! Keeps the connections of a pool that nobody uses.
//!
//! The server soon ends a connection that says nothing, since its process may stand still with rows locked, and it
//! makes no difference between one in a transaction and one that is merely unused. To open those again costs most when
//! a sale begins, so they are pinged: apart from the calls, and one at a time, so that no call waits for it.

use sqlx::{Connection, MySqlConnection, MySqlPool};
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The task that pings. It ends when this is dropped.
#[derive(Debug)]
pub struct KeptAlive(JoinHandle<()>);

impl KeptAlive {
    /// Pings each unused connection of the pool once in `interval`, and closes one that does not answer in time. Needs
    /// a tokio runtime.
    pub fn spawn(pool: MySqlPool, interval: Duration, answer_timeout: Duration) -> Self {
        Self(tokio::spawn(async move {
            while !pool.is_closed() {
                sleep(interval).await;
                ping_unused(&pool, answer_timeout).await;
            }
        }))
    }
}

impl Drop for KeptAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Pings them in turn: the pool hands out the one that was unused the longest, and takes it back as the last.
async fn ping_unused(pool: &MySqlPool, answer_timeout: Duration) {
    for _ in 0..pool.num_idle() {
        let Some(mut conn) = pool.try_acquire() else { return };
        if !answers(&mut conn, answer_timeout).await {
            // Not released: the pool would ping it once more, and wait for the answer without end.
            drop(conn.detach());
        }
    }
}

/// Returns whether the server answers on this connection in time. One that does not is of no more use.
pub async fn answers(conn: &mut MySqlConnection, answer_timeout: Duration) -> bool {
    timeout(answer_timeout, conn.ping()).await.is_ok_and(|answer| answer.is_ok())
}
