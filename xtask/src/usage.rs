//! Memory of processes, and disk space of directories.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The memory of some processes together, in bytes: a page that several have, such as the text of the one program,
/// counts once among them (the kernel's proportional set size). One that has ended counts nothing.
pub fn resident(pids: &[i32]) -> u64 {
    let read = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    // The proportional size of another account's process may be hidden: then all of its resident memory counts.
    let of = |pid| {
        let proportional = read(pid, "smaps_rollup").and_then(|text| bytes_of(&text, "Pss:"));
        proportional.or_else(|| bytes_of(&read(pid, "status")?, "VmRSS:"))
    };
    pids.iter().filter_map(of).sum()
}

fn bytes_of(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The blocks that a directory's files take, in bytes; holes take none.
pub fn disk(path: &Path) -> u64 {
    let Ok(data) = path.symlink_metadata() else { return 0 };
    let own = data.blocks() * 512;
    if !data.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| disk(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_words() {
        assert_eq!(bytes_of("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(bytes_of("5d0-7ff [rollup]\nRss:    9 kB\nPss:    4 kB\n", "Pss:"), Some(4 << 10));
        assert_eq!(bytes_of("Name:\tkernel thread\n", "VmRSS:"), None);
    }
}
