//! The account of the servers. MySQL and MariaDB refuse to run as root, and no server should: where this process is
//! root, they run as `nobody`, if `nobody` can reach the workspace at all.

use crate::{
    shell,
    workspace::{Workspace, make_directory},
};
use anyhow::Context;
use nix::unistd::{Gid, Uid, User};
use std::{path::Path, process::Command};

/// The account that a server process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The account that runs this command.
    Own,
    /// An unprivileged one that root drops to.
    Dropped { uid: u32, gid: u32 },
}

impl Identity {
    /// The account for servers with data and binaries in this workspace.
    ///
    /// A workspace under a private directory such as `/root` is out of reach for `nobody`. Then the
    /// servers run as root rather than not at all; `setup` says so.
    pub fn for_servers(workspace: &Workspace) -> anyhow::Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        let nobody = User::from_name("nobody").context("cannot look up the user nobody")?;
        let nobody = nobody.context("running as root, and there is no user nobody to drop to")?;
        let dropped = Self::Dropped { uid: nobody.uid.as_raw(), gid: nobody.gid.as_raw() };
        make_directory(&workspace.private())?;
        let reachable = dropped.can_enter(&workspace.private());
        Ok(if reachable { dropped } else { Self::Own })
    }

    /// Arguments that make `setpriv` change to this account.
    pub fn setpriv_args(self) -> Vec<String> {
        match self {
            Self::Own => Vec::new(),
            Self::Dropped { uid, gid } => {
                vec![format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]
            }
        }
    }

    /// A program to be run to its end as this account.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(self.setpriv_args()).arg("--").arg(program);
        command
    }

    /// Makes a directory that belongs to this account.
    pub fn own_directory(self, path: &Path) -> anyhow::Result<()> {
        make_directory(path)?;
        self.take(path)
    }

    /// Gives one file or directory to this account.
    pub fn take(self, path: &Path) -> anyhow::Result<()> {
        let Self::Dropped { uid, gid } = self else { return Ok(()) };
        nix::unistd::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .with_context(|| format!("cannot give {} to user {uid}", path.display()))
    }

    /// Returns whether a database server needs the flag that allows root.
    pub fn is_root(self) -> bool {
        self == Self::Own && Uid::effective().is_root()
    }

    /// The user id, as a part of a directory's name.
    pub fn uid(self) -> u32 {
        match self {
            Self::Own => Uid::effective().as_raw(),
            Self::Dropped { uid, .. } => uid,
        }
    }

    fn can_enter(self, directory: &Path) -> bool {
        shell::succeeds(self.command(Path::new("test")).arg("-x").arg(directory))
    }
}
