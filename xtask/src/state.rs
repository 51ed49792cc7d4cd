//! Records the processes of a run, so that `down` can stop those that a killed run left. A process is identified by its
//! id and its start time: a recycled id is never mistaken for it.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// The name of the state file in a run's directory.
const STATE_FILE: &str = "state.json";

/// The identity of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Its start time, in the kernel's clock ticks since boot.
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start_ticks: start_ticks(&stat)? })
    }

    /// Whether it still runs, and is still the same one. A zombie has ended.
    pub fn is_alive(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        start_ticks(&stat) == Some(self.start_ticks) && !is_zombie(&stat)
    }
}

/// The fields of `/proc/PID/stat` after the name, which may itself hold spaces and parentheses.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn start_ticks(stat: &str) -> Option<u64> {
    // Field 22 of the file; the first one after the name is field 3.
    fields(stat).nth(22 - 3)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    fields(stat).next() == Some("Z")
}

/// A supervised process in the state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    /// Its name in the status lines.
    pub name: String,
    pub process: Process,
}

/// The state file of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The `cargo xtask` that supervises the others.
    pub supervisor: Process,
    /// Its children, in the order in which they were started.
    pub children: Vec<Recorded>,
}

impl State {
    /// Reads a run's state; `None` if the run left none.
    pub fn read(run: &Path) -> anyhow::Result<Option<Self>> {
        let path = run.join(STATE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).with_context(|| format!("cannot read {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the file atomically: a reader never sees half of it.
    pub fn write(&self, run: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("the state has a JSON form")?;
        let fresh = run.join("state.json.new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, run.join(STATE_FILE)))
            .with_context(|| format!("cannot write {}", run.join(STATE_FILE).display()))
    }

    /// Forgets a run that has ended.
    pub fn forget(run: &Path) {
        // An error is harmless: a state file that stays behind only names processes that are gone.
        drop(fs::remove_file(run.join(STATE_FILE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        assert_eq!(start_ticks(stat), Some(4242));
        assert!(!is_zombie(stat));
    }

    #[test]
    fn this_process_is_alive_and_one_with_its_id_but_another_start_is_not() {
        let pid = i32::try_from(std::process::id()).expect("fits");
        let this = Process::of(pid).expect("it runs");
        assert!(this.is_alive());
        assert!(!Process { start_ticks: this.start_ticks + 1, ..this }.is_alive());
    }
}
