//! The checks that need no server: formatting, clippy, the house rules, the contracts, dependencies.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cli::Database;
use crate::setup::{self, tools};
use crate::shell;
use crate::tidy;
use crate::ui::say;
use crate::workspace::{Workspace, make_directory, remove_directory};

/// A check by its name.
pub type Check = (&'static str, fn(&Workspace) -> anyhow::Result<()>);

/// All of them, the quick ones first.
pub const CHECKS: [Check; 6] = [
    ("fmt", check_format),
    ("tidy", tidy::run),
    ("buf lint", lint_contracts),
    ("buf breaking", compare_contracts),
    ("cargo deny", judge_dependencies),
    ("clippy", clippy),
];

/// Runs them one after another, and stops at the first that fails.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    setup::everything(workspace, Database::Mysql)?;
    for (name, check) in CHECKS {
        say(&format!("\n=== {name}"));
        check(workspace).with_context(|| format!("{name} failed"))?;
    }
    Ok(())
}

/// Formats the code in place.
pub fn format(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(shell::cargo(workspace.root()).args(["fmt", "--all"]))
}

fn check_format(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(shell::cargo(workspace.root()).args(["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = shell::cargo(workspace.root());
    cargo.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    shell::shown(&mut cargo)
}

fn judge_dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    let mut deny = Command::new(tools::cargo_deny(workspace));
    deny.current_dir(workspace.root());
    // Advisories need a database from the network that changes by the day: not a check of this tree.
    deny.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    shell::shown(&mut deny)
}

fn lint_contracts(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(Command::new(tools::buf(workspace)).current_dir(workspace.root()).arg("lint"))
}

/// Compares the contracts with those of the last commit, or, where nothing has changed since, with
/// those of the commit before: so that the check on a clean checkout judges its last commit.
fn compare_contracts(workspace: &Workspace) -> anyhow::Result<()> {
    let Some(base) = base_commit(workspace.root()) else {
        say("no earlier commit with contracts to compare with: skipped");
        return Ok(());
    };
    let old = workspace.private().join("contracts");
    remove_directory(&old)?;
    make_directory(&old)?;
    extract(workspace.root(), base, &old)?;
    // Both sides by today's rules.
    std::fs::copy(workspace.root().join("buf.yaml"), old.join("buf.yaml")).context("cannot copy buf.yaml")?;
    say(&format!("against {base}"));
    let mut buf = Command::new(tools::buf(workspace));
    buf.current_dir(workspace.root()).arg("breaking").arg("--against").arg(&old);
    let outcome = shell::shown(&mut buf);
    remove_directory(&old)?;
    outcome
}

fn base_commit(root: &Path) -> Option<&'static str> {
    let git = |args: &[&str]| shell::succeeds(Command::new("git").current_dir(root).args(args));
    let unchanged = git(&["diff", "--quiet", "HEAD", "--", "proto"]);
    let base = if unchanged { "HEAD~1" } else { "HEAD" };
    git(&["cat-file", "-e", &format!("{base}:proto/stampede")]).then_some(base)
}

fn extract(root: &Path, commit: &str, into: &Path) -> anyhow::Result<()> {
    let archive = into.join("contracts.tar");
    let mut git = Command::new("git");
    git.current_dir(root).args(["archive", "--format=tar", "--output"]).arg(&archive).args([commit, "proto"]);
    shell::quiet(&mut git)?;
    shell::quiet(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(into)).map(drop)
}
