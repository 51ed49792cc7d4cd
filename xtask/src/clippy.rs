//! Clippy: alone, and as the compiler of the tests.

use crate::{
    shell::{self, Group},
    workspace::Workspace,
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
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

/// A cargo that compiles the crates of the workspace with clippy.
pub fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = shell::cargo(workspace.root());
    cargo.env("RUSTC_WORKSPACE_WRAPPER", driver());
    cargo
}

/// The driver next to cargo, where rustup has it; or the one on PATH.
fn driver() -> OsString {
    let cargo = env::var_os("CARGO").unwrap_or_default();
    let beside = Path::new(&cargo).with_file_name(DRIVER);
    if beside.is_absolute() && beside.exists() { beside.into() } else { DRIVER.into() }
}

/// Runs a cargo that builds, shows what the compiler says, and returns how often it warns. Cargo repeats what it said
/// of crates that have not changed. Warnings do not end the build: tests may run all the same.
pub fn build(cargo: &mut Command) -> anyhow::Result<usize> {
    cargo.arg("--message-format=json-diagnostic-rendered-ansi").stdout(Stdio::piped());
    let mut group = Group::start(cargo)?;
    let output = group.output().expect("standard output is a pipe");
    let (status, warnings) = thread::scope(|scope| {
        let reader = scope.spawn(|| count_warnings(BufReader::new(output)));
        (group.wait(), reader.join().expect("reading lines does not panic"))
    });
    let status = status?;
    if !status.success() {
        bail!("{} failed ({status})", shell::describe(cargo));
    }
    warnings
}

/// Shows the messages of the compiler. Returns how many of them are warnings.
fn count_warnings(output: impl BufRead) -> anyhow::Result<usize> {
    let mut warnings = 0;
    for line in output.lines() {
        let line = line.context("cannot read what cargo says")?;
        let event: Value =
            serde_json::from_str(&line).with_context(|| format!("cargo says what is not JSON: {line}"))?;
        if event["reason"] != "compiler-message" {
            continue;
        }
        let message = &event["message"];
        if let Some(rendered) = message["rendered"].as_str() {
            eprint!("{rendered}");
        }
        // The sum of a crate's warnings is a message of its own, and names no place.
        let names_a_place = message["spans"].as_array().is_some_and(|spans| !spans.is_empty());
        warnings += usize::from(message["level"] == "warning" && names_a_place);
    }
    Ok(warnings)
}

/// Fails if there are warnings.
pub fn judge(warnings: usize) -> anyhow::Result<()> {
    match warnings {
        0 => Ok(()),
        1 => bail!("there is 1 warning, and it stands above"),
        many => bail!("there are {many} warnings, and they stand above"),
    }
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
            cargo.env("RUSTC_WORKSPACE_WRAPPER", driver()).env("CARGO_TARGET_DIR", root.join("target"));
            build(cargo.args(["build", "--offline", "--quiet"]))
        };
        assert_eq!(built().expect("a warning is no error"), 1);
        assert_eq!(built().expect("nothing has changed"), 1, "it is said again");
        assert!(judge(1).is_err() && judge(0).is_ok());
        std::fs::write(root.join("src/lib.rs"), "pub fn broken() -> u8 {}\n").expect("writable");
        assert!(built().is_err());
    }
}
