//! How much memory processes hold and how much disk a directory takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The resident memory of some processes together, in bytes. One that has ended counts nothing.
pub fn resident(pids: &[i32]) -> u64 {
    pids.iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .map(|text| resident_of(&text))
        .sum()
}

fn resident_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
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
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), 2 << 20);
        assert_eq!(resident_of("Name:\tkernel thread\n"), 0);
    }
}
