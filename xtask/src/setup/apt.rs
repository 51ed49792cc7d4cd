//! Installs missing packages with apt, as root or through sudo without a password. Elsewhere it
//! says exactly what is missing, where it was looked for, and what would bring it.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Context, bail};
use nix::unistd::Uid;

use crate::setup::requirement::Requirement;
use crate::shell;
use crate::ui::{Step, say};

/// Sees to it that every requirement is met.
pub fn provide(requirements: &[Requirement]) -> anyhow::Result<()> {
    let missing: Vec<Requirement> = requirements.iter().filter(|one| !one.is_met()).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = Apt::find() else { bail!(explain(&missing)) };
    for requirement in &missing {
        say(&format!("missing: {}", requirement.what));
    }
    apt.install(&missing)?;
    match missing.iter().find(|one| !one.is_met()) {
        Some(still) => bail!("apt installed its packages, but {} is not to be found as {}", still.what, still.looked()),
        None => Ok(()),
    }
}

/// A way to run apt-get with the rights it needs.
struct Apt {
    sudo: bool,
}

impl Apt {
    fn find() -> Option<Self> {
        shell::find_program("apt-get")?;
        if Uid::effective().is_root() {
            return Some(Self { sudo: false });
        }
        let allowed = shell::succeeds(Command::new("sudo").args(["-n", "true"]));
        allowed.then_some(Self { sudo: true })
    }

    fn install(&self, missing: &[Requirement]) -> anyhow::Result<()> {
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

    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = match self.sudo {
            true => Command::new("sudo"),
            false => Command::new("env"),
        };
        if self.sudo {
            command.args(["-n", "env"]);
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

fn explain(missing: &[Requirement]) -> String {
    let mut text = String::from(
        "these are missing, and apt-get cannot be used here (it needs to be there, with root or a sudo that asks for no password):",
    );
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
    fn without_apt_every_missing_thing_is_named_with_its_package() {
        let text = explain(&[JAVA]);
        assert!(text.contains("Java") && text.contains("openjdk-17-jre-headless"), "{text}");
    }
}
