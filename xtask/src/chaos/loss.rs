//! Data loss of a Redis that is down: all of its files, or their end.

use crate::workspace::{remove_directory, remove_file};
use anyhow::Context;
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

/// Bytes of the first lost command that stay on the disk: fewer than any command has.
const TORN: u64 = 7;

/// Files with the sizes that they had at some time.
pub struct Sizes(Vec<(PathBuf, u64)>);

impl Sizes {
    /// Reads the sizes of all files in a folder and below.
    pub fn of(folder: &Path) -> anyhow::Result<Self> {
        let mut sizes = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for path in entries(&next)? {
                let data = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
                if data.is_dir() {
                    folders.push(path);
                } else {
                    sizes.push((path, data.len()));
                }
            }
        }
        Ok(Self(sizes))
    }

    /// Truncates the bytes written since, in the middle of the first lost command. Returns whether there were any.
    pub fn restore(self) -> anyhow::Result<bool> {
        let mut has_cut = false;
        for (path, size) in self.0 {
            has_cut |= cut(&path, size + TORN).with_context(|| format!("cannot cut {}", path.display()))?;
        }
        Ok(has_cut)
    }
}

/// A file that is gone was replaced by one that is not cut.
fn cut(path: &Path, size: u64) -> std::io::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    let is_longer = file.metadata()?.len() > size;
    if is_longer {
        file.set_len(size)?;
    }
    Ok(is_longer)
}

/// Removes everything in a folder, which stays.
pub fn empty(folder: &Path) -> anyhow::Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            remove_directory(&path)?;
        } else {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed: std::io::Result<Vec<PathBuf>> =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.with_context(|| format!("cannot list {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scratch::Scratch, workspace::make_directory};

    #[test]
    fn bytes_written_since_are_truncated_and_all_can_be_lost() {
        let scratch = Scratch::new("loss");
        let folder = scratch.path().join("appendonlydir");
        make_directory(&folder).expect("writable");
        let (grows, stays) = (folder.join("incr.aof"), scratch.path().join("dump.rdb"));
        fs::write(&grows, b"before").and_then(|()| fs::write(&stays, b"same")).expect("writable");
        let sizes = Sizes::of(scratch.path()).expect("readable");
        fs::write(&grows, b"before and after it").expect("writable");
        assert!(sizes.restore().expect("writable"));
        assert_eq!(fs::read(&grows).expect("readable"), b"before and af");
        assert_eq!(fs::read(&stays).expect("readable"), b"same");
        assert!(!Sizes::of(scratch.path()).expect("readable").restore().expect("writable"), "nothing came after");

        empty(scratch.path()).expect("writable");
        assert_eq!(entries(scratch.path()).expect("it stays"), Vec::<PathBuf>::new());
    }
}
