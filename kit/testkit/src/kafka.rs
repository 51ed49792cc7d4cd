//! Kafka, made to stand still.

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::fs;

/// Tables of the kernel with the sockets that listen.
const SOCKETS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of such a socket.
const LISTENS: &str = "0A";

/// A broker that stands still, as on a machine that is paused: it takes connections, and answers nobody. It goes on when
/// this is dropped.
#[derive(Debug)]
pub struct FrozenKafka(Pid);

impl FrozenKafka {
    /// Lets the broker of these addresses stand still, the first one. Every test that uses it waits meanwhile, so it must
    /// be for some seconds at most. Returns nothing if its process cannot be seen from here, as in a container.
    pub fn new(brokers: &str) -> Result<Option<Self>> {
        let first = brokers.split(',').next().unwrap_or_default();
        let port: u16 = first.rsplit_once(':').with_context(|| format!("{first} has no port"))?.1.parse()?;
        let Some(pid) = who_listens(port)? else { return Ok(None) };
        kill(pid, Signal::SIGSTOP)?;
        Ok(Some(Self(pid)))
    }
}

impl Drop for FrozenKafka {
    fn drop(&mut self) {
        // It fails if the broker is gone, which tests find out by themselves.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// The process that listens at this port, as far as its files may be seen.
fn who_listens(port: u16) -> Result<Option<Pid>> {
    let mut sockets = Vec::new();
    for table in SOCKETS {
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().filter_map(|line| listening(line, port)));
    }
    for process in fs::read_dir("/proc").context("there are no processes to look at")? {
        let process = process?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let mut names = links.filter_map(|link| link.to_str().map(str::to_owned));
        if names.any(|name| sockets.contains(&name)) {
            return Ok(Some(Pid::from_raw(pid)));
        }
    }
    Ok(None)
}

/// The name among the files of its process that a socket has which listens at this port, by its line in the table.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let is_it = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENS;
    is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_socket_that_listens_has_its_name() {
        let line = "   0: 0100007F:1BB4 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4242 1 0";
        assert_eq!(listening(line, 7_092), Some("socket:[4242]".to_owned()));
        assert_eq!(listening(line, 7_093), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 7_092), None);
        assert_eq!(listening("  sl  local_address rem_address   st", 7_092), None);
    }

    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = who_listens(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, Some(Pid::this()));
    }
}
