//! Clippy: alone, and as the compiler of the tests.

use crate::{
    shell::{self, Group},
    workspace::Workspace,
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    collections::HashSet,
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

/// The program that compiles, and warns as clippy does.
const DRIVER: &str = "clippy-driver";

/// Runs clippy alone, on everything. Fails if it warns of anything.
pub fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = shell::cargo(workspace.root());
    cargo.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    shell::shown(&mut cargo)
}

/// A cargo that compiles the crates of the workspace with clippy, if that is installed.
pub fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = shell::cargo(workspace.root());
    if let Some(driver) = driver() {
        cargo.env("RUSTC_WORKSPACE_WRAPPER", driver);
    }
    cargo
}

/// The driver next to cargo, where rustup has it; or the one on PATH.
fn driver() -> Option<PathBuf> {
    let cargo = PathBuf::from(env::var_os("CARGO").unwrap_or_default());
    let beside = cargo.with_file_name(DRIVER);
    if cargo.is_absolute() && beside.exists() { Some(beside) } else { shell::find_program(DRIVER) }
}

/// The warnings of a build, each once, though a library is compiled both for itself and for its tests.
#[derive(Debug, Default)]
pub struct Warnings(HashSet<String>);

impl Warnings {
    /// Fails if there are any.
    pub fn judge(&self) -> anyhow::Result<()> {
        if driver().is_none() {
            bail!("clippy is not installed: rustup component add clippy");
        }
        match self.0.len() {
            0 => Ok(()),
            1 => bail!("there is 1 warning, and it stands above"),
            many => bail!("there are {many} warnings, and they stand above"),
        }
    }

    /// Shows the messages of the compiler that are new, and notes the warnings.
    fn read(&mut self, output: impl BufRead) -> anyhow::Result<()> {
        for line in output.lines() {
            let line = line.context("cannot read what cargo says")?;
            let event: Value =
                serde_json::from_str(&line).with_context(|| format!("cargo says what is not JSON: {line}"))?;
            let message = &event["message"];
            let Some(rendered) = message["rendered"].as_str() else { continue };
            // The sum of a crate's warnings is a message of its own.
            let is_sum = message["message"].as_str().is_some_and(|text| text.ends_with(" emitted"));
            let is_warning = message["level"] == "warning" && !is_sum;
            if !is_warning || self.0.insert(rendered.to_owned()) {
                eprint!("{rendered}");
            }
        }
        Ok(())
    }
}

/// Runs a cargo that builds, shows the messages of the compiler, and collects its warnings. Cargo repeats those of
/// crates that have not changed. Warnings do not end the build: tests may run all the same.
pub fn build(cargo: &mut Command, warnings: &mut Warnings) -> anyhow::Result<()> {
    cargo.arg("--message-format=json-diagnostic-rendered-ansi").stdout(Stdio::piped());
    let mut group = Group::start(cargo)?;
    let output = group.output().expect("standard output is a pipe");
    let (status, read) = thread::scope(|scope| {
        let reader = scope.spawn(|| warnings.read(BufReader::new(output)));
        (group.wait(), reader.join().expect("reading lines does not panic"))
    });
    let status = status?;
    // First, since a cargo whose output nobody reads any more fails for that.
    read?;
    if !status.success() {
        bail!("{} failed ({status})", shell::describe(cargo));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_clippy_warns_of_is_counted_each_time_and_does_not_end_the_build() {
        let scratch = Scratch::new("clippy");
        let root = scratch.path();
        let manifest = "[package]\nname = \"one\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
                        [lints.clippy]\nunwrap_used = \"warn\"\n";
        std::fs::create_dir(root.join("src")).expect("writable");
        std::fs::write(root.join("Cargo.toml"), manifest).expect("writable");
        let lib = "/// Fails without one.\npub fn first(all: &[u8]) -> u8 {\n    *all.first().unwrap()\n}\n";
        std::fs::write(root.join("src/lib.rs"), lib).expect("writable");
        let built = || {
            let mut cargo = shell::cargo(root);
            let driver = driver().expect("clippy is installed");
            cargo.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CARGO_TARGET_DIR", root.join("target"));
            let mut warnings = Warnings::default();
            build(cargo.args(["build", "--offline", "--quiet", "--all-targets"]), &mut warnings).map(|()| warnings)
        };
        assert_eq!(built().expect("a warning is no error").0.len(), 1, "once, for the library and its tests");
        let again = built().expect("nothing has changed");
        assert_eq!(again.0.len(), 1, "it is said again");
        assert!(again.judge().is_err() && Warnings::default().judge().is_ok());
        std::fs::write(root.join("src/lib.rs"), "pub fn broken() -> u8 {}\n").expect("writable");
        assert!(built().is_err());
    }
}
