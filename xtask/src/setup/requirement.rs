//! One thing that must be on the machine: how to see that it is, and which package brings it.

use std::process::Command;

use crate::shell;

/// How to see whether a requirement is met.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// A shared library known to the dynamic linker, by the beginning of its name.
    Library(&'static str),
    /// A Java runtime of at least this feature version.
    Java(u32),
    /// A Python that can make virtual environments.
    PythonVenv,
}

/// A thing that must be there.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// What it is, for the contributor.
    pub what: &'static str,
    /// How to see that it is there.
    pub probe: Probe,
    /// Packages that bring it, the better first: releases of a distribution name them differently.
    pub packages: &'static [&'static str],
}

impl Requirement {
    /// Whether the machine has it.
    pub fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => shell::find_program(name).is_some(),
            Probe::Library(name) => has_library(name),
            Probe::Java(least) => java_version().is_some_and(|version| version >= least),
            Probe::PythonVenv => can_make_venvs(),
        }
    }

    /// Where it was looked for, for the contributor who has to install it by hand.
    pub fn looked(&self) -> String {
        let path = || shell::search_path().iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
        match self.probe {
            Probe::Program(name) => format!("{name} in {}", path()),
            Probe::Library(name) => format!("{name} among the libraries of `ldconfig -p`"),
            Probe::Java(least) => format!("a `java -version` of {least} or more, in {}", path()),
            Probe::PythonVenv => "`python3 -c 'import venv, ensurepip'`".to_owned(),
        }
    }
}

fn has_library(name: &str) -> bool {
    let Some(ldconfig) = shell::find_program("ldconfig") else { return false };
    let known = shell::quiet(Command::new(ldconfig).arg("-p")).unwrap_or_default();
    known.lines().any(|line| line.trim_start().starts_with(name))
}

fn java_version() -> Option<u32> {
    let output = Command::new("java").arg("-version").output().ok()?;
    parse_java_version(&String::from_utf8_lossy(&output.stderr))
}

/// `openjdk version "17.0.15" 2025-04-15` is 17. The old style, 1.8, is 1: too old in any case.
fn parse_java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

fn can_make_venvs() -> bool {
    shell::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_of_every_style_are_read() {
        assert_eq!(parse_java_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_java_version("openjdk version \"21-ea\" 2023-09-19\n"), Some(21));
        assert_eq!(parse_java_version("java version \"1.8.0_402\"\n"), Some(1));
        assert_eq!(parse_java_version("java: not found"), None);
    }
}
