//! The journal: one JSON line an entry, only ever added to. A line is handed to the operating system before its
//! request is answered, so a killed process loses nothing that it answered. It is no defence against power loss.

use crate::records::{Entry, Records};
use anyhow::{Context, bail};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

/// The open file, locked for this process.
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens the file, or makes it, and rebuilds the records from it.
    ///
    /// A last line that was cut off by a kill is dropped: its request was never answered. Any other line that cannot be
    /// read is an error, as is a file that another process uses.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Journal, Records)> {
        let open = OpenOptions::new().create(true).read(true).append(true).open(path);
        let file = open.with_context(|| format!("cannot open the journal {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("the journal {} is in use by another process", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context("cannot lock the journal");
            }
        }
        let (records, whole_bytes) =
            replay(&file).with_context(|| format!("cannot replay the journal {}", path.display()))?;
        file.set_len(whole_bytes)?;
        Ok((Journal { file }, records))
    }

    /// Appends an entry. Fails if it was not written; a part of it may then be in the file.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// Returns the records, and how many bytes of the file hold whole lines.
fn replay(file: &File) -> anyhow::Result<(Records, u64)> {
    let mut records = Records::default();
    let mut whole_bytes = 0;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let entry = serde_json::from_slice(&line).with_context(|| format!("line {number}"))?;
        records.apply(entry);
        whole_bytes += bytes as u64;
    }
    Ok((records, whole_bytes))
}
