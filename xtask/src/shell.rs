//! Running other programs to their end, and finding them. Long-lived children are `launch`'s.

use crate::interrupt;
use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output},
    thread,
    time::{Duration, Instant},
};

/// Directories that hold servers and system tools and are often missing from a user's PATH.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Number of lines of a failed program's output that are printed.
const TAIL_LINES: usize = 20;

/// Returns the search path: PATH, then the system directories, each once.
pub fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    all.fold(Vec::new(), |mut seen, directory| {
        if !seen.contains(&directory) {
            seen.push(directory);
        }
        seen
    })
}

/// The first program of this name on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_programs(name).into_iter().next()
}

/// All programs of this name on the search path, the first one first.
pub fn find_programs(name: &str) -> Vec<PathBuf> {
    let all = search_path().into_iter().map(|directory| directory.join(name));
    all.filter(|path| is_executable(path)).collect()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Runs a program without printing its output, and returns its standard output. The end of it is part of the error if
/// it fails.
pub fn quiet(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})\n{}", describe(command), output.status, last_words(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program that prints to the terminal itself, such as cargo. An interrupt ends it and its children.
pub fn shown(command: &mut Command) -> anyhow::Result<()> {
    let status = Group::start(command)?.wait()?;
    succeeded(command, status)
}

/// Runs a program that prompts the contributor on the terminal, which belongs to the group of this process.
pub fn asking(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    succeeded(command, status)
}

fn succeeded(command: &Command, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Poll interval of a running program and of the stop flag.
const TICK: Duration = Duration::from_millis(20);
/// Longest time for a program to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A program with its children: a process group of their own, so that none is left behind when it is stopped.
pub struct Group {
    child: Child,
}

impl Group {
    /// Starts a program as the first of its group.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        interrupt::listen()?;
        let child = command.process_group(0).spawn().with_context(|| format!("cannot run {}", describe(command)))?;
        Ok(Self { child })
    }

    /// Takes its standard output, if that is a pipe.
    pub fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until it has ended, or stops it on an interrupt.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for a program")? {
                return Ok(status);
            }
            if let Err(interrupted) = interrupt::check() {
                self.stop();
                return Err(interrupted);
            }
            thread::sleep(TICK);
        }
    }

    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    fn stop(&mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.signal(Signal::SIGTERM);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(TICK);
        }
        // Its children may outlive it.
        self.signal(Signal::SIGKILL);
        // Reaped, or killed just now: its status says nothing new.
        drop(self.child.wait());
    }

    fn signal(&self, signal: Signal) {
        let leader = i32::try_from(self.child.id()).expect("the kernel's process ids fit in an i32");
        // The group may be empty already, which is fine.
        let _ended = killpg(Pid::from_raw(leader), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.stop();
        }
    }
}

/// Whether a program runs and exits with zero. Its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Prefixes of the variables by which `cargo run` describes its own package. A cargo below would see them as a change
/// of environment, and build crates again that have not changed.
const OWN_PACKAGE: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// The cargo that runs this process, or the one on PATH.
pub fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if OWN_PACKAGE.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// The last lines of a text, for a message about what went wrong.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A command as one would type it, for a message.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn last_words(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    tail(&String::from_utf8_lossy(&said), TAIL_LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines_and_short_texts_whole() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn a_failing_program_is_named_with_its_output() {
        let error = quiet(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).expect_err("exits with 3");
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains("broken") && text.contains('3'), "{text}");
    }
}
