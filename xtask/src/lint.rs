//! The checks that need no server: formatting, clippy, the house rules, the contracts, dependencies.

use crate::{
    cli::LintArgs,
    clippy, lists,
    setup::{self, tools},
    shell, tidy,
    ui::say,
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::{Context, bail};
use std::{path::Path, process::Command};

/// A check by its name.
pub type Check = (&'static str, fn(&Workspace) -> anyhow::Result<()>);

/// Those that compile nothing.
pub const QUICK_CHECKS: [Check; 7] = [
    ("fmt", check_format),
    ("tidy", tidy::run),
    ("buf lint", lint_contracts),
    ("buf format", check_contract_format),
    ("buf breaking", compare_contracts),
    ("cargo deny", judge_dependencies),
    ("alerts", test_alerts),
];

/// Runs the checks one after another, and stops at the first that fails; or runs that of the advisories alone.
pub fn run(workspace: &Workspace, args: &LintArgs) -> anyhow::Result<()> {
    setup::checks(workspace)?;
    if args.advisories {
        return deny(workspace, &["advisories"]);
    }
    let all = QUICK_CHECKS.into_iter().chain([("clippy", clippy::check as fn(&Workspace) -> _)]);
    for (name, check) in all {
        say(&format!("\n=== {name}"));
        check(workspace).with_context(|| format!("{name} failed"))?;
    }
    Ok(())
}

/// Formats code and contracts in place, and writes the lists that follow from the registry of services.
pub fn format(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(shell::cargo(workspace.root()).args(["fmt", "--all"]))?;
    if tools::buf(workspace).exists() {
        shell::shown(&mut format_contracts(workspace, &["--write"]))?;
    } else {
        say("the contracts are left as they are: buf is not here, and `cargo xtask lint` fetches it");
    }
    lists::write(workspace)
}

fn check_format(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(shell::cargo(workspace.root()).args(["fmt", "--all", "--check"]))?;
    lists::check(workspace)
}

fn judge_dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    // Advisories need a database from the network that changes by the day: not a check of this tree.
    deny(workspace, &["bans", "licenses", "sources"])
}

fn deny(workspace: &Workspace, checks: &[&str]) -> anyhow::Result<()> {
    let mut deny = Command::new(tools::cargo_deny(workspace));
    deny.current_dir(workspace.root()).args(["--log-level", "error", "check"]).args(checks);
    shell::shown(&mut deny)
}

/// Runs the tests of the alerts, where promtool is: it comes with Prometheus alone.
fn test_alerts(workspace: &Workspace) -> anyhow::Result<()> {
    let Some(promtool) = shell::find_program("promtool") else {
        say("promtool, which comes with Prometheus, is not installed: skipped");
        return Ok(());
    };
    let folder = workspace.root().join("deploy/compose/observability");
    shell::shown(Command::new(promtool).current_dir(folder).args(["test", "rules", "rules.test.yaml"]))
}

fn lint_contracts(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(Command::new(tools::buf(workspace)).current_dir(workspace.root()).arg("lint"))
}

fn check_contract_format(workspace: &Workspace) -> anyhow::Result<()> {
    shell::shown(&mut format_contracts(workspace, &["--diff", "--exit-code"]))
}

/// Checks the format of our own contracts, not of vendored ones.
fn format_contracts(workspace: &Workspace, how: &[&str]) -> Command {
    let mut buf = Command::new(tools::buf(workspace));
    buf.current_dir(workspace.root()).args(["format", "--path", "proto/stampede"]).args(how);
    buf
}

/// Compares the contracts with those of the last commit, or, where nothing has changed since, with
/// those of the commit before: so that the check on a clean checkout judges its last commit.
fn compare_contracts(workspace: &Workspace) -> anyhow::Result<()> {
    let Some(base) = base_commit(workspace.root())? else {
        say("no earlier commit with contracts to compare with: skipped");
        return Ok(());
    };
    let old = workspace.private().join("contracts");
    remove_directory(&old)?;
    make_directory(&old)?;
    extract(workspace.root(), base, &old)?;
    // Both commits by the current rules.
    std::fs::copy(workspace.root().join("buf.yaml"), old.join("buf.yaml")).context("cannot copy buf.yaml")?;
    say(&format!("against {base}"));
    let mut buf = Command::new(tools::buf(workspace));
    buf.current_dir(workspace.root()).arg("breaking").arg("--against").arg(&old);
    let outcome = shell::shown(&mut buf);
    remove_directory(&old)?;
    outcome
}

/// Returns the commit to compare with; none only if there is no earlier one, or it has no contracts yet. Fails for a
/// history that cannot be read or is shallow: the comparison would be skipped unnoticed.
fn base_commit(root: &Path) -> anyhow::Result<Option<&'static str>> {
    let ask = |args: &[&str]| shell::quiet(Command::new("git").current_dir(root).args(args));
    let holds = |args: &[&str]| shell::succeeds(Command::new("git").current_dir(root).args(args));
    ask(&["rev-parse", "--verify", "HEAD^{commit}"]).with_context(|| {
        format!(
            "git cannot find the last commit, which the contracts are compared with; this has to be a git checkout, \
             and if it belongs to another user: git config --global --add safe.directory {}",
            root.display()
        )
    })?;
    let changed = !ask(&["status", "--porcelain", "--", "proto"])?.is_empty();
    let base = if changed { "HEAD" } else { "HEAD~1" };
    if !holds(&["rev-parse", "--verify", "--quiet", &format!("{base}^{{commit}}")]) {
        if ask(&["rev-parse", "--is-shallow-repository"])?.trim() == "true" {
            bail!(
                "the commit before the last, which the contracts are compared with, was not cloned: \
                 git fetch --deepen 1, or, where the checkout is made, fetch-depth: 2"
            );
        }
        return Ok(None);
    }
    Ok(holds(&["cat-file", "-e", &format!("{base}:proto/stampede")]).then_some(base))
}

fn extract(root: &Path, commit: &str, into: &Path) -> anyhow::Result<()> {
    let archive = into.join("contracts.tar");
    let mut git = Command::new("git");
    git.current_dir(root).args(["archive", "--format=tar", "--output"]).arg(&archive).args([commit, "proto"]);
    shell::quiet(&mut git)?;
    shell::quiet(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(into)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn git(directory: &Path, args: &[&str]) {
        let who = ["-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false"];
        shell::quiet(Command::new("git").current_dir(directory).args(who).args(args)).expect("git works");
    }

    fn commit(directory: &Path, contract: &str) {
        make_directory(&directory.join("proto/stampede")).expect("writable");
        std::fs::write(directory.join("proto/stampede/a.proto"), contract).expect("writable");
        git(directory, &["add", "."]);
        git(directory, &["commit", "--quiet", "--message", contract]);
    }

    #[test]
    fn contracts_are_compared_with_the_last_commit_or_the_one_before() {
        let scratch = Scratch::new("lint-base");
        let root = scratch.path();
        git(root, &["init", "--quiet"]);
        assert!(base_commit(root).is_err(), "a history that cannot be read is not passed over");
        commit(root, "one");
        assert_eq!(base_commit(root).expect("readable"), None, "the first commit has none before it");
        commit(root, "two");
        assert_eq!(base_commit(root).expect("readable"), Some("HEAD~1"));
        std::fs::write(root.join("proto/stampede/b.proto"), "new").expect("writable");
        assert_eq!(base_commit(root).expect("readable"), Some("HEAD"));
    }

    #[test]
    fn a_shallow_history_is_an_error_with_the_way_to_mend_it() {
        let scratch = Scratch::new("lint-shallow");
        let (whole, cut) = (scratch.path().join("whole"), scratch.path().join("cut"));
        make_directory(&whole).expect("writable");
        git(&whole, &["init", "--quiet"]);
        commit(&whole, "one");
        commit(&whole, "two");
        let from = format!("file://{}", whole.display());
        git(scratch.path(), &["clone", "--quiet", "--depth", "1", &from, &cut.display().to_string()]);
        let error = base_commit(&cut).expect_err("it was cut off").to_string();
        assert!(error.contains("fetch-depth"), "{error}");
    }

    #[test]
    fn the_workflow_runs_what_ci_runs_with_the_commit_before() {
        let workflow = include_str!("../../.github/workflows/ci.yml");
        for line in ["fetch-depth: 2", "run: .ci/run"] {
            assert!(workflow.contains(line), "the workflow has no `{line}`");
        }
    }
}
