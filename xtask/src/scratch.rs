//! A directory for one test, which is gone when the test is.

use crate::workspace::{make_directory, remove_directory};
use std::path::{Path, PathBuf};

/// Lives as long as the test that holds it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A directory that no other test, nor the same test of another run, uses.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        remove_directory(&path).expect("what a process of this id left can be removed");
        make_directory(&path).expect("a temporary directory can be made");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failed removal is left to the system's own clean-up.
        drop(remove_directory(&self.path));
    }
}
