//! Lists of processes in files that only a deployment reads: written from the registry, and compared with it.

use crate::workspace::Workspace;
use anyhow::{Context, bail};
use stampede_vocab::{ADMIN_PORT_OFFSET, Process, Service};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Begins a list that has lines of its own; a blank line ends it.
const MARK: &str = "  # Written by `cargo xtask fmt`.\n";

/// The text between two marks of a file, of which the first is the first of its kind there.
struct List {
    file: &'static str,
    begin: &'static str,
    end: &'static str,
    content: String,
}

fn all() -> [List; 6] {
    let list = |file, begin, end, content| List { file, begin, end, content };
    let published = watched().chain([Process::Sandbox]);
    [
        list("compose/.env", "# Ports on this machine.\n", "\nREDIS_PORT", join(published, "\n", port)),
        list("compose/compose.observability.yaml", MARK, "\n\n", join(watched(), "\n", traced)),
        list("compose/observability/prometheus.yaml", MARK, "\n\n", join(watched(), "\n", scraped)),
        list("compose/observability/rules.yaml", "expr: up{job=~\"", "\"}", join(watched(), "|", name)),
        list(
            "compose/observability/grafana/dashboards/processes.json",
            "up{job=~\\\"",
            "\\\"}",
            join(watched(), "|", name),
        ),
        list("ec2/units/mesh.conf", "secrets prepare \\\n    ", "\n", join(Process::all(), " ", name)),
    ]
}

/// The processes that are monitored: all but the payment provider, which is a third party's.
fn watched() -> impl Iterator<Item = Process> {
    std::iter::once(Process::Gateway).chain(Service::ALL.map(Process::Service))
}

fn join(processes: impl Iterator<Item = Process>, between: &str, entry: fn(Process) -> String) -> String {
    processes.map(entry).collect::<Vec<_>>().join(between)
}

fn name(process: Process) -> String {
    process.name().to_owned()
}

fn port(process: Process) -> String {
    format!("{}_PORT={}", process.name().to_uppercase(), process.port())
}

fn traced(process: Process) -> String {
    format!("  {process}: *traced")
}

fn scraped(process: Process) -> String {
    let port = process.port() + ADMIN_PORT_OFFSET;
    format!("  - job_name: {process}\n    static_configs: [{{targets: [\"{process}:{port}\"]}}]")
}

pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    for list in all() {
        let (path, text) = list.read(workspace.root())?;
        let written = list.put_in(&text)?;
        if written != text {
            fs::write(&path, written).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Fails if a list differs from the registry.
pub fn check(workspace: &Workspace) -> anyhow::Result<()> {
    for list in all() {
        let (path, text) = list.read(workspace.root())?;
        if list.put_in(&text)? != text {
            bail!("{}: its processes are not those of the registry: `cargo xtask fmt` writes them", path.display());
        }
    }
    Ok(())
}

impl List {
    fn read(&self, root: &Path) -> anyhow::Result<(PathBuf, String)> {
        let path = root.join("deploy").join(self.file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path, text))
    }

    /// The text of the file with this list in it.
    fn put_in(&self, text: &str) -> anyhow::Result<String> {
        let Self { file, begin, end, ref content } = *self;
        let parts = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
        let (before, after) = parts.with_context(|| format!("{file} has no list between {begin:?} and {end:?}"))?;
        Ok(format!("{before}{begin}{content}{end}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_that_of_the_registry() {
        check(&Workspace::locate()).expect("`cargo xtask fmt` writes the lists");
    }

    #[test]
    fn a_list_takes_the_place_of_the_old_one_and_nothing_else_changes() {
        let list = List { file: "a.yaml", begin: "up: [", end: "]", content: "order, event".to_owned() };
        assert_eq!(
            list.put_in("# [old]\nup: [order]\nend: []\n").expect("it has one"),
            "# [old]\nup: [order, event]\nend: []\n"
        );
        assert!(list.put_in("down: [order]").is_err());
    }
}
