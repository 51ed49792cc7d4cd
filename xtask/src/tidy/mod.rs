//! The house rules that no compiler checks: the dependencies between crates and between layers, and the shape of files.
//! Each rule is a pure function from text to findings; only this file reads.

mod arrows;
mod composed;
mod examples;
mod header;
mod layers;
mod lua;
mod source;

use crate::{ui::Step, workspace::Workspace};
use anyhow::{Context, bail};
use std::{fs, path::Path};

/// Directories that hold no source of ours.
const SKIPPED: [&str; 2] = ["target", "node_modules"];

/// A breach of a rule, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    rule: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule: rule.into() }
    }
}

/// Checks every file of the workspace, and fails with all findings.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let step = Step::begin("tidy", "reading the sources");
    let mut files = Vec::new();
    collect(workspace.root(), workspace.root(), &mut files)?;
    let mut findings: Vec<Finding> = files.iter().flat_map(|(path, text)| check(path, text)).collect();
    findings.extend(examples::check(&files));
    for finding in &findings {
        eprintln!("{}:{}: {}", finding.path, finding.line, finding.rule);
    }
    if !findings.is_empty() {
        bail!("{} house rules are broken", findings.len());
    }
    step.done(&format!("{} files keep the house rules", files.len()));
    Ok(())
}

fn check(path: &str, text: &str) -> Vec<Finding> {
    let findings = match path.rsplit('.').next() {
        Some("rs") => [source::check(path, text), layers::check(path, text)].concat(),
        Some("toml") if path.ends_with("Cargo.toml") => arrows::check(path, text),
        Some("lua") => lua::check(path, text),
        _ => header::check(path, text),
    };
    [findings, composed::check(path, text)].concat()
}

/// Whether a rule applies to the file at this path.
fn has_rules(path: &str) -> bool {
    [".rs", ".lua", "Cargo.toml"].iter().any(|end| path.ends_with(end))
        || header::comment_of(path).is_some()
        || composed::is_misplaced(path)
}

/// The files that rules apply to, with their path from the root, in a stable order.
fn collect(root: &Path, directory: &Path, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().context("cannot list a directory")?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().context("a file has a type")?.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                collect(root, &path, files)?;
            }
        } else {
            let relative = path.strip_prefix(root).context("it lies under the root")?.to_string_lossy().into_owned();
            if has_rules(&relative) {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                files.push((relative, text));
            }
        }
    }
    Ok(())
}
