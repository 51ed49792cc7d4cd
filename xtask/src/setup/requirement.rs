//! One requirement of the machine: how to check it, and which package has it.

use crate::shell;
use std::{path::Path, process::Command};

/// A release, as far as it matters: its major and minor number.
pub type Release = (u32, u32);

/// A check of a requirement.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// A program on the search path whose `--version` is at least this.
    Least(&'static str, Release),
    /// A shared library known to the dynamic linker, by the beginning of its name.
    Library(&'static str),
    /// A Java runtime of at least this feature version.
    Java(u32),
    /// A Python that can make virtual environments.
    PythonVenv,
}

/// A requirement of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Its name, for the contributor.
    pub what: &'static str,
    pub probe: Probe,
    /// Packages that have it, the better first: releases of a distribution name them differently.
    pub packages: &'static [&'static str],
}

impl Requirement {
    /// Whether the machine has it.
    pub fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => shell::find_program(name).is_some(),
            Probe::Least(name, least) => found_release(name).is_some_and(|found| found >= least),
            Probe::Library(name) => has_library(name),
            Probe::Java(least) => java_version().is_some_and(|version| version >= least),
            Probe::PythonVenv => can_make_venvs(),
        }
    }

    /// Returns the places that were searched, for the contributor who has to install it by hand.
    pub fn looked(&self) -> String {
        let path = || shell::search_path().iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":");
        match self.probe {
            Probe::Program(name) => format!("{name} in {}", path()),
            Probe::Least(name, (major, minor)) => {
                let found = match found_release(name) {
                    Some((major, minor)) => format!("the first one there is {major}.{minor}"),
                    None => "there is none".to_owned(),
                };
                format!("{name} {major}.{minor} or later in {} ({found})", path())
            }
            Probe::Library(name) => format!("{name} among the libraries of `ldconfig -p`"),
            Probe::Java(least) => format!("a `java -version` of {least} or more, in {}", path()),
            Probe::PythonVenv => "`python3 -c 'import venv, ensurepip'`".to_owned(),
        }
    }
}

fn found_release(name: &str) -> Option<Release> {
    let (major, minor, _) = version_of(&shell::find_program(name)?)?;
    Some((major, minor))
}

/// Parses the version that a program prints: three numbers, or two and a zero.
pub fn version_of(program: &Path) -> Option<(u32, u32, u32)> {
    parse_version(&shell::quiet(Command::new(program).arg("--version")).ok()?)
}

/// The first word that looks like a version: of `Redis server v=7.0.15 sha=...`, of `v20.19.2`, and of
/// `mysqld  Ver 8.0.36-0ubuntu0.22.04.1 for Linux`, whatever the path before it.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    text.split([' ', '=', '\t', '\n']).find_map(|word| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.split(['.', '-', '+', '~']).map_while(|part| part.parse().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next().unwrap_or(0)))
    })
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
    fn versions_are_parsed_from_the_output_of_servers() {
        for (said, version) in [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=8d5f\n", Some((7, 0, 15))),
            ("mariadbd  Ver 10.11.11-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", Some((10, 11, 11))),
            ("/usr/sbin/mysqld  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))", Some((8, 0, 36))),
            ("/opt/mysql-8.0/bin/mysqld  Ver 8.4 for Linux", Some((8, 4, 0))),
            ("v20.19.2\n", Some((20, 19, 2))),
            ("no version here, only 42", None),
        ] {
            assert_eq!(parse_version(said), version, "{said}");
        }
    }

    #[test]
    fn a_release_that_is_too_old_is_not_met_and_reported() {
        let cargo = |least| Requirement { what: "cargo", probe: Probe::Least("cargo", least), packages: &["cargo"] };
        assert!(cargo((1, 0)).is_met());
        let never = cargo((9_999, 0));
        assert!(!never.is_met());
        assert!(never.looked().contains("the first one there is 1."), "{}", never.looked());
    }

    #[test]
    fn java_versions_of_every_style_are_read() {
        assert_eq!(parse_java_version("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_java_version("openjdk version \"21-ea\" 2023-09-19\n"), Some(21));
        assert_eq!(parse_java_version("java version \"1.8.0_402\"\n"), Some(1));
        assert_eq!(parse_java_version("java: not found"), None);
    }
}
