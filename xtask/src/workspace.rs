//! Paths: the workspace's root and the directories under `.stampede/`. It only names paths and makes directories; their
//! contents belong to others.

use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checked-out repository that this binary was built from.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the root from the path of this crate, so that any working directory will do.
    pub fn locate() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the xtask crate lies in the workspace's root");
        Self { root: root.to_owned() }
    }

    /// The root of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that is not under version control: tools, data, logs.
    pub fn private(&self) -> PathBuf {
        self.root.join(".stampede")
    }

    /// A tool's own directory. Nothing is installed outside of it, except by apt.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.private().join("tools").join(name)
    }

    /// The data, logs and state of one run: `up`, `demo`, or one of `test`.
    pub fn run(&self, name: &str) -> PathBuf {
        self.private().join(name)
    }

    /// Returns the directory in which cargo puts the binaries of a profile.
    pub fn binaries(&self, profile: &str) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.root.join(target).join(profile)
    }
}

/// Makes a directory and those above it.
pub fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Removes a file or a link; one that is not there is fine.
pub fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is not there is fine.
pub fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
