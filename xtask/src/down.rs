//! `cargo xtask down`: stops the processes of a killed `up`, `demo`, `bench`, `chaos` or `test`, by the ids it stored.

use crate::{
    bench, chaos, openapi,
    state::{Process, State},
    ui::{Step, say},
    workspace::{Workspace, remove_directory},
};
use anyhow::bail;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long a supervisor may take to stop its whole fleet, and a lone child to end.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(120);
const CHILD_TIMEOUT: Duration = Duration::from_secs(20);

/// Stops every run of this workspace that is not a test in progress, and cleans up after dead ones.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut found = 0;
    for name in ["up", "demo", bench::RUN, chaos::RUN, openapi::RUN] {
        found += usize::from(stop_run(name, &workspace.run(name))?);
    }
    for (name, run) in test_runs(workspace) {
        found += usize::from(mend_test(&name, &run)?);
    }
    if found == 0 {
        say("nothing was running");
    }
    Ok(())
}

/// Fails if a run is in progress; stops its leftovers if it was killed.
pub fn mend_before(name: &str, run: &Path) -> anyhow::Result<()> {
    let Some(state) = State::read(run)? else { return Ok(()) };
    if state.supervisor.is_alive() {
        bail!(
            "`{name}` is running already (process {}); stop it with Ctrl-C or cargo xtask down",
            state.supervisor.pid
        );
    }
    stop_run(name, run).map(drop)
}

/// Removes the leftovers of killed tests.
pub fn mend_tests(workspace: &Workspace) -> anyhow::Result<()> {
    for (name, run) in test_runs(workspace) {
        mend_test(&name, &run)?;
    }
    Ok(())
}

fn test_runs(workspace: &Workspace) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(workspace.run("test")) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter_map(|path| Some((format!("test {}", path.file_name()?.to_str()?), path))).collect()
}

fn mend_test(name: &str, run: &Path) -> anyhow::Result<bool> {
    let in_progress = State::read(run)?.is_some_and(|state| state.supervisor.is_alive());
    if in_progress {
        return Ok(false);
    }
    let stopped = stop_run(name, run)?;
    remove_directory(run)?;
    Ok(stopped)
}

/// Stops one run. Returns whether anything of it was running.
fn stop_run(name: &str, run: &Path) -> anyhow::Result<bool> {
    let Some(state) = State::read(run)? else { return Ok(false) };
    let supervised = state.supervisor.is_alive();
    if supervised {
        let step = Step::begin(name, "stopping");
        stop(state.supervisor, SUPERVISOR_TIMEOUT)?;
        step.done("stopped, through its supervisor");
    }
    // Services before the servers they use: the reverse of the order in which they were started.
    let left = state.children.iter().rev().filter(|child| child.process.is_alive());
    let mut mended = false;
    for child in left {
        let step = Step::begin(&child.name, "stopping");
        stop(child.process, CHILD_TIMEOUT)?;
        step.done(&format!("stopped process {}, left by a killed {name}", child.process.pid));
        mended = true;
    }
    State::forget(run);
    Ok(supervised || mended)
}

fn stop(process: Process, within: Duration) -> anyhow::Result<()> {
    for (signal, timeout) in [(Signal::SIGTERM, within), (Signal::SIGKILL, CHILD_TIMEOUT)] {
        // A process may end in between, which is fine.
        let _ended = kill(Pid::from_raw(process.pid), signal);
        // A stopped process gets SIGTERM once it continues.
        let _goes_on = kill(Pid::from_raw(process.pid), Signal::SIGCONT);
        if ends_within(process, timeout) {
            return Ok(());
        }
    }
    bail!("process {} does not end, even when killed", process.pid)
}

fn ends_within(process: Process, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while process.is_alive() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scratch::Scratch, state::Recorded};
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let process = Process::of(i32::try_from(child.id()).expect("fits")).expect("it runs");
        (child, process)
    }

    fn recorded(process: Process) -> Recorded {
        Recorded { name: "sleeper".into(), process }
    }

    #[test]
    fn leftovers_of_a_killed_run_are_stopped_and_a_stranger_with_a_recycled_id_is_not() {
        let scratch = Scratch::new("down");
        let run = scratch.path();
        let ((mut left, left_process), (mut stranger, stranger_process)) = (sleeper(), sleeper());
        let recycled = Process { start_ticks: stranger_process.start_ticks - 1, ..stranger_process };
        let dead = Process { start_ticks: 0, ..left_process };
        let state = State { supervisor: dead, children: vec![recorded(left_process), recorded(recycled)] };
        state.write(run).expect("writable");

        assert!(stop_run("up", run).expect("it ends"));
        assert!(!left.wait().expect("it is ours").success());
        assert!(stranger_process.is_alive());
        assert!(!stop_run("up", run).expect("nothing is left"));

        stranger.kill().and_then(|()| stranger.wait()).expect("it is ours");
    }
}
