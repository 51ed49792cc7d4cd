//! Starting one long-lived child: its log file, its account, and its tie to this process.

use crate::identity::Identity;
use anyhow::Context;
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The order of stopping: the highest tier first. All children of one tier stop concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Redis, the database, Kafka.
    Server,
    /// The payment provider, which services call outside of the mesh.
    Provider,
    Service,
    Gateway,
}

/// A process to start, and how to end it.
#[derive(Debug)]
pub struct Launch {
    /// Name in status lines, and of the log file.
    pub name: String,
    /// Its tier, which decides when it is stopped.
    pub tier: Tier,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Environment on top of this process' own.
    pub env: Vec<(String, String)>,
    /// The account it runs as.
    pub identity: Identity,
    /// Longest time from SIGTERM until it is killed.
    pub stop_timeout: Duration,
}

impl Launch {
    pub fn log(&self, run: &Path) -> PathBuf {
        run.join("logs").join(format!("{}.log", self.name))
    }

    /// Starts it in a process group of its own, so that Ctrl-C in the terminal reaches only the
    /// supervisor, and with a parent-death signal, so that it ends with a supervisor that is killed.
    ///
    /// The kernel ties that signal to the thread that starts the child: call this from the main
    /// thread only.
    pub fn spawn(&self, run: &Path) -> anyhow::Result<Child> {
        let log = self.log(run);
        self.spawn_writing_to(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
    }

    /// Restarts one that was started before: its log is appended to.
    pub fn spawn_again(&self, run: &Path) -> anyhow::Result<Child> {
        let log = self.log(run);
        let output = OpenOptions::new().create(true).append(true).open(&log);
        self.spawn_writing_to(output.with_context(|| format!("cannot write {}", log.display()))?)
    }

    fn spawn_writing_to(&self, output: File) -> anyhow::Result<Child> {
        let errors = output.try_clone().context("cannot share the log file")?;
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(self.identity.setpriv_args())
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} ({}) through setpriv", self.name, self.program.display()))
    }
}
