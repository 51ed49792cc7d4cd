//! Installs missing packages with apt, as root or through sudo, which prompts for its password where there is a
//! terminal. Elsewhere it fails with each missing requirement, the places that were searched, and the packages that
//! have it.

use crate::{
    setup::requirement::Requirement,
    shell,
    ui::{Step, say},
};
use anyhow::{Context, bail};
use nix::unistd::Uid;
use std::{
    fmt::Write,
    io::{IsTerminal, stderr, stdin},
    process::Command,
};

/// Installs missing packages, so that every requirement is met.
pub fn provide(requirements: &[Requirement]) -> anyhow::Result<()> {
    let missing: Vec<Requirement> = requirements.iter().filter(|one| !one.is_met()).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let apt = Apt::find().map_err(|lack| anyhow::anyhow!(explain(&missing, lack)))?;
    for requirement in &missing {
        say(&format!("missing: {}", requirement.what));
    }
    apt.install(&missing)?;
    match missing.iter().find(|one| !one.is_met()) {
        Some(still) => bail!("apt installed its packages, but {} was not found as {}", still.what, still.looked()),
        None => Ok(()),
    }
}

/// A way to run apt-get with the rights it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Apt {
    Root,
    /// sudo needs no password.
    Sudo,
    /// sudo prompts for a password, on the terminal.
    PromptingSudo,
}

/// A requirement of apt-get that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Program,
    Sudo,
    Terminal,
}

impl Lack {
    fn describe(self) -> &'static str {
        match self {
            Self::Program => "there is no apt-get here",
            Self::Sudo => "apt-get needs root, and there is no sudo",
            Self::Terminal => "apt-get needs root, and `sudo -n` is refused: there is no terminal to ask a password on",
        }
    }
}

/// Facts about the machine that decide how packages are installed.
struct Machine {
    apt: bool,
    root: bool,
    sudo: bool,
    terminal: bool,
}

impl Machine {
    fn detect() -> Self {
        Self {
            apt: shell::find_program("apt-get").is_some(),
            root: Uid::effective().is_root(),
            sudo: shell::find_program("sudo").is_some(),
            terminal: stdin().is_terminal() && stderr().is_terminal(),
        }
    }

    fn choose(&self, sudo_is_silent: impl FnOnce() -> bool) -> Result<Apt, Lack> {
        match self {
            Self { apt: false, .. } => Err(Lack::Program),
            Self { root: true, .. } => Ok(Apt::Root),
            Self { sudo: false, .. } => Err(Lack::Sudo),
            _ if sudo_is_silent() => Ok(Apt::Sudo),
            Self { terminal: true, .. } => Ok(Apt::PromptingSudo),
            _ => Err(Lack::Terminal),
        }
    }
}

impl Apt {
    fn find() -> Result<Self, Lack> {
        Machine::detect().choose(|| shell::succeeds(Command::new("sudo").args(["-n", "true"])))
    }

    fn install(self, missing: &[Requirement]) -> anyhow::Result<()> {
        if self == Self::PromptingSudo {
            say("sudo may ask for your password, to run apt-get");
            shell::asking(Command::new("sudo").arg("--validate"))?;
        }
        let step = Step::begin("apt", "reading the package lists");
        say("apt-get update");
        self.run(&["update"])?;
        let packages = choose(missing, is_available)?;
        say(&format!("apt-get install {}", packages.join(" ")));
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(&packages);
        self.run(&args)?;
        step.done(&format!("installed {}", packages.join(" ")));
        Ok(())
    }

    fn run(self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(if self == Self::Root { "env" } else { "sudo" });
        match self {
            Self::Root => {}
            Self::Sudo => drop(command.args(["-n", "env"])),
            // The password was given a moment ago. Where sudo does not cache it, it prompts on the terminal again.
            Self::PromptingSudo => drop(command.arg("env")),
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(args);
        shell::quiet(&mut command).map(drop)
    }
}

/// The packages to install, each once, in a stable order.
fn choose(missing: &[Requirement], available: impl Fn(&str) -> bool) -> anyhow::Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    for requirement in missing {
        let package = requirement.packages.iter().copied().find(|name| available(name));
        let package = package.with_context(|| {
            format!("apt knows no package for {}: tried {}", requirement.what, requirement.packages.join(", "))
        })?;
        if !chosen.contains(&package) {
            chosen.push(package);
        }
    }
    Ok(chosen)
}

fn is_available(package: &str) -> bool {
    let policy = shell::quiet(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    has_candidate(&policy) || is_provided(package)
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
}

/// A package that was renamed lives on as one that another provides.
fn is_provided(package: &str) -> bool {
    let shown = shell::quiet(Command::new("apt-cache").args(["showpkg", package])).unwrap_or_default();
    shown.split("Reverse Provides:").nth(1).is_some_and(|providers| !providers.trim().is_empty())
}

fn explain(missing: &[Requirement], lack: Lack) -> String {
    let mut text = format!("these are missing, and cannot be installed from here ({}):", lack.describe());
    for requirement in missing {
        let package = requirement.packages[0];
        write!(text, "\n  {}: looked for {}; Debian's package is {package}", requirement.what, requirement.looked())
            .expect("a String takes all that is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::requirement::Probe;

    const JAVA: Requirement = Requirement {
        what: "Java",
        probe: Probe::Java(17),
        packages: &["openjdk-17-jre-headless", "default-jre-headless"],
    };

    #[test]
    fn the_first_package_that_is_to_be_had_is_chosen_and_only_once() {
        assert_eq!(choose(&[JAVA, JAVA], |_| true).expect("there"), ["openjdk-17-jre-headless"]);
        assert_eq!(choose(&[JAVA], |name| name.starts_with("default")).expect("there"), ["default-jre-headless"]);
        assert!(choose(&[JAVA], |_| false).expect_err("none").to_string().contains("openjdk-17"));
    }

    #[test]
    fn a_package_without_candidate_is_not_available() {
        assert!(has_candidate("redis-server:\n  Installed: (none)\n  Candidate: 5:7.0.15-1\n"));
        assert!(!has_candidate("libaio1:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn installed_packages_are_left_alone() {
        let met = Requirement { what: "a shell", probe: Probe::Program("sh"), packages: &["there-is-no-such-package"] };
        provide(&[met]).expect("nothing is to be done");
    }

    #[test]
    fn sudo_asks_only_where_there_is_a_terminal() {
        let user = Machine { apt: true, root: false, sudo: true, terminal: true };
        assert_eq!(user.choose(|| false), Ok(Apt::PromptingSudo));
        assert_eq!(user.choose(|| true), Ok(Apt::Sudo));
        let script = Machine { terminal: false, ..user };
        assert_eq!(script.choose(|| true), Ok(Apt::Sudo));
        assert_eq!(script.choose(|| false), Err(Lack::Terminal));
        assert!(explain(&[JAVA], Lack::Terminal).contains("terminal"));
        let root = Machine { root: true, sudo: false, ..script };
        assert_eq!(root.choose(|| panic!("sudo is not asked")), Ok(Apt::Root));
    }

    #[test]
    fn without_apt_every_missing_thing_is_named_with_its_package() {
        let text = explain(&[JAVA], Lack::Program);
        assert!(text.contains("Java") && text.contains("openjdk-17-jre-headless"), "{text}");
    }
}
