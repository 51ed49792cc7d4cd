//! A command that runs next to the fleet, to its end or until it is dropped.

use super::stop_child;
use crate::shell;
use anyhow::Context;
use std::{
    process::{Child, Command, ExitStatus},
    time::Duration,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A command under way. It is stopped when it is dropped.
pub struct Beside {
    child: Child,
    typed: String,
}

impl Beside {
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let typed = shell::describe(&command);
        let child = command.spawn().with_context(|| format!("cannot run {typed}"))?;
        Ok(Self { child, typed })
    }

    /// Returns its exit status, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.typed))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            stop_child(&mut self.child, STOP_TIMEOUT);
        }
    }
}
