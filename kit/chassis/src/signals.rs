//! The signals that stop a process.

use anyhow::Context;
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// SIGTERM and SIGINT, from the moment this is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    pub(crate) fn listen() -> anyhow::Result<Signals> {
        let on = |kind| signal(kind).context("cannot listen to signals");
        Ok(Signals { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ignores signals for this time.
    pub(crate) async fn ignore_for(&mut self, time: Duration) {
        let ignored = async {
            loop {
                self.next().await;
            }
        };
        // Ends only by the timeout.
        let _: Result<(), _> = timeout(time, ignored).await;
    }
}
