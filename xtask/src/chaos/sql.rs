//! A session with the database server as its root, who has no password and connects by the server's socket file. A
//! minimal client, so that no driver has to be built.

use anyhow::{Context, bail, ensure};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

/// Longest wait for an answer: longer than the sessions here wait for a lock.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Protocol 4.1, with authentication by a plugin (here without a password).
const CAPABILITIES: u32 = 0x0001 | 0x0200 | 0x8000 | 0x0008_0000;
/// utf8mb4, in MySQL and in MariaDB.
const CHARSET: u8 = 45;
const MAX_PACKET: u32 = 1 << 24;
const PLUGIN: &str = "caching_sha2_password";

const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
const NULL: u8 = 0xfb;
const COM_QUERY: u8 = 0x03;

/// A session. It ends, and its transaction with it, when it is dropped.
pub struct Session<S = UnixStream> {
    stream: S,
    /// The number of the next packet of an exchange.
    sequence: u8,
}

impl Session {
    /// Opens a session by the socket file of this name in this folder.
    pub fn open(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let handle = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        // The whole path may be too long for a socket's name.
        let short = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
        let stream =
            UnixStream::connect(short).with_context(|| format!("cannot connect to {}", folder.join(name).display()))?;
        let timeout = Some(ANSWER_TIMEOUT);
        stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)).context("no time-outs")?;
        let mut session = Self { stream, sequence: 0 };
        session.log_in().context("the database does not let root in")?;
        Ok(session)
    }
}

impl<S: Read + Write> Session<S> {
    pub fn run(&mut self, sql: &str) -> anyhow::Result<()> {
        self.rows(sql).map(drop)
    }

    /// The first column of every row that a statement yields; empty where it is null.
    pub fn rows(&mut self, sql: &str) -> anyhow::Result<Vec<String>> {
        self.sequence = 0;
        self.write(&[&[COM_QUERY][..], sql.as_bytes()].concat())?;
        self.answer().with_context(|| sql.to_owned())
    }

    /// The number in the first column of the only row.
    pub fn number(&mut self, sql: &str) -> anyhow::Result<u64> {
        let rows = self.rows(sql)?;
        let number = rows.first().and_then(|text| text.parse().ok());
        number.with_context(|| format!("{sql}: no number: {rows:?}"))
    }

    fn log_in(&mut self) -> anyhow::Result<()> {
        let greeting = self.read()?;
        refused(&greeting)?;
        let user = b"root\0";
        let (capabilities, longest) = (CAPABILITIES.to_le_bytes(), MAX_PACKET.to_le_bytes());
        // Between user and plugin is the length of the password.
        let hello: [&[u8]; 8] = [&capabilities, &longest, &[CHARSET], &[0; 23], user, &[0], PLUGIN.as_bytes(), &[0]];
        self.write(&hello.concat())?;
        loop {
            let answer = self.read()?;
            refused(&answer)?;
            match answer.first() {
                Some(&OK) => return Ok(()),
                Some(&END) => self.write(no_password_of(&answer[1..]))?,
                Some(&MORE) => {}
                _ => bail!("an answer that is not known: {answer:?}"),
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<Vec<String>> {
        let head = self.read()?;
        refused(&head)?;
        if head.first() == Some(&OK) {
            return Ok(Vec::new());
        }
        // The columns, to their end.
        while !is_end(&self.read()?) {}
        let mut rows = Vec::new();
        loop {
            let row = self.read()?;
            refused(&row)?;
            if is_end(&row) {
                return Ok(rows);
            }
            rows.push(first_column(&row)?);
        }
    }

    fn read(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).context("the database does not answer")?;
        let [low, middle, high, sequence] = head;
        let mut packet = vec![0; u32::from_le_bytes([low, middle, high, 0]) as usize];
        self.stream.read_exact(&mut packet).context("the database does not answer")?;
        self.sequence = sequence.wrapping_add(1);
        Ok(packet)
    }

    fn write(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        let length = u32::try_from(packet.len()).context("a packet is short")?;
        ensure!(length < MAX_PACKET - 1, "a packet is short");
        let mut head = length.to_le_bytes();
        head[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&[&head[..], packet].concat()).context("the database does not listen")
    }
}

/// The authentication data of an empty password.
fn no_password_of(plugin: &[u8]) -> &'static [u8] {
    if plugin.starts_with(PLUGIN.as_bytes()) { &[0] } else { &[] }
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&END) && packet.len() < 9
}

/// Fails for an error packet: behind its mark are a number of two bytes, and a state of six or none.
fn refused(packet: &[u8]) -> anyhow::Result<()> {
    match packet {
        [ERROR, low, high, text @ ..] => {
            bail!("error {}: {}", u16::from_le_bytes([*low, *high]), String::from_utf8_lossy(text))
        }
        _ => Ok(()),
    }
}

/// A text begins with its length, of one byte, or of two or three behind a mark.
fn first_column(row: &[u8]) -> anyhow::Result<String> {
    let (length, rest) = match row {
        [NULL, ..] => return Ok(String::new()),
        [0xfc, low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        [0xfd, low, middle, high, rest @ ..] => (u32::from_le_bytes([*low, *middle, *high, 0]) as usize, rest),
        [length, rest @ ..] => (usize::from(*length), rest),
        [] => bail!("a row without a column"),
    };
    let text = rest.get(..length).context("a row ends within its first column")?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Cursor};

    /// A server that sends these bytes, whatever it receives.
    struct Script {
        says: Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.says.read(into)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn session(packets: &[&[u8]]) -> Session<Script> {
        let framed = packets.iter().zip(1_u8..).map(|(packet, sequence)| {
            let length = u8::try_from(packet.len()).expect("short");
            [&[length, 0, 0, sequence][..], *packet].concat()
        });
        let says = Cursor::new(framed.collect::<Vec<_>>().concat());
        Session { stream: Script { says, heard: Vec::new() }, sequence: 0 }
    }

    const END_PACKET: &[u8] = &[0xfe, 0, 0, 2, 0];

    #[test]
    fn the_first_column_of_each_row_is_read() {
        let mut session = session(&[&[1], b"a column", END_PACKET, b"\x02id", &[0xfb], b"\x00", END_PACKET]);
        assert_eq!(session.rows("SELECT 1").expect("readable"), ["id", "", ""]);
        assert_eq!(session.stream.heard, b"\x09\0\0\0\x03SELECT 1");
    }

    #[test]
    fn a_refused_statement_is_an_error_that_names_it() {
        let mut session = session(&[b"\xff\x15\x04#HY000no such thing"]);
        let error = format!("{:#}", session.run("KILL 7").expect_err("refused"));
        assert!(error.contains("KILL 7") && error.contains("1045") && error.contains("no such thing"), "{error}");
    }

    #[test]
    fn a_plugin_may_be_changed_at_log_in() {
        let mut session = session(&[&[10, b'8'], b"\xfemysql_native_password\0salt", &[0, 0, 0]]);
        session.log_in().expect("it is let in");
        assert!(session.stream.heard.ends_with(&[0, 0, 0, 3]), "an empty packet is no password");
        assert_eq!(no_password_of(b"caching_sha2_password\0salt"), [0]);
    }

    #[test]
    fn lengths_of_more_than_a_byte_are_read() {
        let long = "x".repeat(300);
        let row = [&[0xfc, 44, 1][..], long.as_bytes()].concat();
        assert_eq!(first_column(&row).expect("readable"), long);
        assert!(first_column(&[5, b'x']).is_err());
    }
}
