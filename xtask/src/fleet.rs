//! The supervised children of one run: started, waited for, watched, and stopped in order.
//! A fleet that goes out of scope stops what is still running, whatever the reason.

mod beside;
mod strikes;

use crate::{
    interrupt,
    launch::{Launch, Tier},
    shell,
    state::{Process, Recorded, State},
    workspace::make_directory,
};
use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use crate::fleet::beside::Beside;

/// Poll interval of children and signals.
pub const TICK: Duration = Duration::from_millis(20);

/// Number of lines of a dead child's log that are printed.
const TAIL_LINES: usize = 20;

struct Member {
    launch: Launch,
    child: Child,
    log: PathBuf,
    ended: bool,
    /// Whether it was killed on purpose: then its end is no error until it is started again.
    is_away: bool,
}

/// The children of one run.
pub struct Fleet {
    run: PathBuf,
    members: Vec<Member>,
    interrupted: Arc<AtomicBool>,
}

impl Fleet {
    /// A fleet with its data, logs and state in `run`. From here on Ctrl-C sets a flag that the fleet checks while it
    /// waits; a second one ends this process at once.
    pub fn open(run: &Path) -> anyhow::Result<Self> {
        make_directory(&run.join("logs"))?;
        let interrupted = interrupt::listen()?;
        let fleet = Self { run: run.to_owned(), members: Vec::new(), interrupted };
        fleet.write_down()?;
        Ok(fleet)
    }

    /// The directory of this run.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Whether the contributor has interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Starts a child and records it in the state file.
    pub fn start(&mut self, launch: Launch) -> anyhow::Result<()> {
        let child = launch.spawn(&self.run)?;
        let log = launch.log(&self.run);
        self.members.push(Member { launch, child, log, ended: false, is_away: false });
        self.write_down()
    }

    /// Waits until a child is ready. Fails on the death of any child, on Ctrl-C and at the deadline.
    pub fn wait_ready(&mut self, name: &str, within: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while !ready() {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{name} was not ready within {} s\n{}", within.as_secs(), self.log_tail(name));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Waits until a child dies, which is an error with its log, or until Ctrl-C, which is none.
    pub fn watch(&mut self) -> anyhow::Result<()> {
        while !self.is_interrupted() {
            if let Some(obituary) = self.first_death() {
                bail!(obituary);
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Runs a command with the terminal as its output until it ends. Stops it on the death of any child and on Ctrl-C,
    /// and returns that as the error rather than the command's own failure, which follows from it.
    pub fn run_command(&mut self, command: Command) -> anyhow::Result<ExitStatus> {
        let mut beside = Beside::start(command)?;
        loop {
            let ended = beside.ended()?;
            self.check()?;
            if let Some(status) = ended {
                return Ok(status);
            }
            thread::sleep(TICK);
        }
    }

    /// Sleeps. Fails on the death of any child and on Ctrl-C.
    pub fn stay(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Fails if a child has died or the contributor has interrupted.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(obituary) = self.first_death() {
            bail!(obituary);
        }
        if self.is_interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// The process ids of the children of some tiers.
    pub fn pids(&self, tiers: &[Tier]) -> Vec<i32> {
        let chosen = self.members.iter().filter(|member| tiers.contains(&member.launch.tier));
        chosen.map(|member| pid_of(&member.child).as_raw()).collect()
    }

    /// The names and process ids of all children.
    pub fn processes(&self) -> Vec<(String, i32)> {
        self.members.iter().map(|member| (member.launch.name.clone(), pid_of(&member.child).as_raw())).collect()
    }

    /// Stops everything: the gateway first, the servers last, each with its deadline.
    pub fn stop(&mut self) {
        for tier in [Tier::Gateway, Tier::Service, Tier::Provider, Tier::Server] {
            let mut members: Vec<&mut Member> =
                self.members.iter_mut().filter(|member| member.launch.tier == tier).collect();
            stop_together(&mut members);
        }
        self.members.clear();
        State::forget(&self.run);
    }

    /// Kills everything at once: for servers whose data nobody needs any more, and which would write all of it down.
    pub fn end_at_once(&mut self) {
        for member in &mut self.members {
            if matches!(member.child.try_wait(), Ok(None)) {
                // Each has a group of its own: what it has forked ends with it, and writes nothing more.
                let _ended = killpg(pid_of(&member.child), Signal::SIGKILL);
            }
        }
        for mut member in self.members.drain(..) {
            // Killed just now: it cannot block for long, and its status says nothing new.
            drop(member.child.wait());
        }
        State::forget(&self.run);
    }

    fn first_death(&mut self) -> Option<String> {
        self.members.iter_mut().filter(|member| !member.is_away).find_map(|member| {
            let status = member.child.try_wait().ok().flatten()?;
            member.ended = true;
            Some(obituary(&member.launch.name, status, &member.log))
        })
    }

    fn log_tail(&self, name: &str) -> String {
        let member = self.members.iter().find(|member| member.launch.name == name);
        member.map_or_else(String::new, |member| tail_of(&member.log))
    }

    fn write_down(&self) -> anyhow::Result<()> {
        let own = i32::try_from(std::process::id()).context("a process id fits")?;
        let supervisor = Process::of(own).context("cannot read /proc: is it mounted?")?;
        let children = self.members.iter().filter(|member| !member.is_away).filter_map(|member| {
            let process = Process::of(pid_of(&member.child).as_raw())?;
            Some(Recorded { name: member.launch.name.clone(), process })
        });
        State { supervisor, children: children.collect() }.write(&self.run)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stop_together(members: &mut [&mut Member]) {
    for member in members.iter_mut() {
        member.ended = member.ended || matches!(member.child.try_wait(), Ok(Some(_)));
        if !member.ended {
            signal(&member.child, Signal::SIGTERM);
            // A stopped process gets SIGTERM once it continues.
            signal(&member.child, Signal::SIGCONT);
        }
    }
    let started = Instant::now();
    for member in members.iter_mut().filter(|member| !member.ended) {
        if !ends_within(&mut member.child, member.launch.stop_timeout.saturating_sub(started.elapsed())) {
            eprintln!(
                "  {} did not stop within {} s and is killed",
                member.launch.name,
                member.launch.stop_timeout.as_secs()
            );
            signal(&member.child, Signal::SIGKILL);
        }
        // Reaped, or killed just now: it cannot block for long, and its status says nothing new.
        drop(member.child.wait());
    }
}

fn stop_child(child: &mut Child, within: Duration) {
    signal(child, Signal::SIGTERM);
    if !ends_within(child, within) {
        signal(child, Signal::SIGKILL);
    }
    // As above.
    drop(child.wait());
}

fn ends_within(child: &mut Child, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(TICK);
    }
}

fn signal(child: &Child, signal: Signal) {
    // The child is not reaped yet, so the id is still its own; it may have ended, which is the aim.
    let _ended = kill(pid_of(child), signal);
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("the kernel's process ids fit in an i32"))
}

fn obituary(name: &str, status: ExitStatus, log: &Path) -> String {
    format!("{name} ended on its own ({status}); the end of {}:\n{}", log.display(), tail_of(log))
}

fn tail_of(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    shell::tail(&String::from_utf8_lossy(&text), TAIL_LINES)
}

#[cfg(test)]
mod tests;
