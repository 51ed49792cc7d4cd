//! The programs that only the checks and the clients need: buf for the contracts, cargo-deny for the dependencies,
//! schemathesis for the description of the API.
//! Exact versions, each in a directory of its own under `.stampede/tools`.

use crate::{
    setup::{
        apt,
        requirement::{Probe, Requirement},
    },
    shell,
    ui::{Step, say},
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const BUF: &str = "1.75.0";
const CARGO_DENY: &str = "0.20.2";
const SCHEMATHESIS: &str = "4.32.5";

/// Requirements of fetching the tools.
pub const REQUIREMENTS: [Requirement; 2] = [
    Requirement { what: "Python 3 with venv", probe: Probe::PythonVenv, packages: &["python3-venv"] },
    Requirement { what: "git", probe: Probe::Program("git"), packages: &["git"] },
];

/// The program that lints contracts.
pub fn buf(workspace: &Workspace) -> PathBuf {
    workspace.tool("buf").join("bin/buf")
}

/// The program that checks dependencies.
pub fn cargo_deny(workspace: &Workspace) -> PathBuf {
    workspace.tool("cargo-deny").join("bin/cargo-deny")
}

/// Fetches the tools, unless they are there in their versions.
pub fn fetch(workspace: &Workspace) -> anyhow::Result<()> {
    let step = Step::begin("tools", "looking for the tools");
    fetch_buf_alone(workspace)?;
    once(&workspace.tool("cargo-deny"), CARGO_DENY, fetch_cargo_deny)?;
    step.done(&format!("buf {BUF} and cargo-deny {CARGO_DENY} are here"));
    Ok(())
}

/// Fetches buf, which also generates clients, unless it is there in its version. It needs Python's venv.
pub fn fetch_buf_alone(workspace: &Workspace) -> anyhow::Result<()> {
    once(&workspace.tool("buf"), BUF, fetch_buf)
}

/// Installs a tool into a directory, unless its mark shows this version already.
pub fn once(directory: &Path, version: &str, install: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stamp = directory.join("version");
    if fs::read_to_string(&stamp).is_ok_and(|had| had == version) {
        return Ok(());
    }
    remove_directory(directory)?;
    make_directory(directory)?;
    install(directory)?;
    fs::write(&stamp, version).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The program that tests an API by its description, fetched the first time.
pub fn schemathesis(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    apt::provide(&REQUIREMENTS[..1])?;
    let directory = workspace.tool("schemathesis");
    once(&directory, SCHEMATHESIS, |directory| {
        say(&format!("installing schemathesis {SCHEMATHESIS} with pip into {}", directory.display()));
        pip_install(directory, &format!("schemathesis=={SCHEMATHESIS}"))
    })?;
    Ok(directory.join("bin/schemathesis"))
}

fn fetch_buf(directory: &Path) -> anyhow::Result<()> {
    say(&format!("installing buf {BUF} with pip into {}", directory.display()));
    pip_install(directory, &format!("buf-bin=={BUF}"))
}

/// Installs a program that comes as a Python package into a directory of its own.
pub(super) fn pip_install(directory: &Path, package: &str) -> anyhow::Result<()> {
    shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", package]);
    shell::quiet(&mut pip).map(drop)
}

fn fetch_cargo_deny(directory: &Path) -> anyhow::Result<()> {
    say(&format!("building cargo-deny {CARGO_DENY} into {}: a minute or two, once", directory.display()));
    let mut cargo = shell::cargo(directory);
    // Without optimisations, which would take longer than all the checks that they make quicker.
    cargo.args(["install", "--locked", "--quiet", "--debug", "--root"]).arg(directory);
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "false");
    cargo.arg(format!("cargo-deny@{CARGO_DENY}"));
    shell::shown(&mut cargo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// Logs each installation, and removes nothing.
    fn install(directory: &Path) -> anyhow::Result<()> {
        fs::write(directory.join("tool"), "fresh").context("writable")
    }

    fn fail(_directory: &Path) -> anyhow::Result<()> {
        anyhow::bail!("no network")
    }

    #[test]
    fn a_tool_is_installed_once_for_each_version_and_again_after_a_failure() {
        let scratch = Scratch::new("tools-once");
        let directory = scratch.path().join("buf");
        let tool = directory.join("tool");
        once(&directory, "1", install).expect("installed");
        fs::write(&tool, "used").expect("writable");
        once(&directory, "1", install).expect("it is there");
        assert_eq!(fs::read_to_string(&tool).expect("kept"), "used");
        once(&directory, "2", install).expect("installed anew");
        assert_eq!(fs::read_to_string(&tool).expect("there"), "fresh");
        once(&directory, "3", fail).expect_err("it cannot be fetched");
        once(&directory, "2", install).expect("what failed is not taken for installed");
        assert!(tool.exists());
    }
}
