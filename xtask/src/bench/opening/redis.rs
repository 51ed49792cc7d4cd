//! A minimal Redis client for the bench: commands of an administrator, and a subscription.

use anyhow::{Context, bail};
use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a message before the subscriber checks other work.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(100);

/// A connection to one logical database.
pub struct Connection<S: Read = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    /// Connects to this logical database at HOST:PORT.
    pub fn open(address: &str, database: u32) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to Redis at {address}"))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream: BufReader::new(stream) };
        connection.command(&["SELECT", &database.to_string()])?;
        Ok(connection)
    }

    /// Runs a command, and returns its answer as texts; a list within a list is part of it.
    pub fn command(&mut self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(request.as_bytes()).context("Redis does not listen")?;
        self.reply()
    }

    /// Subscribes to a channel. From here on there are only messages.
    pub fn subscribe(&mut self, channel: &str) -> anyhow::Result<()> {
        self.command(&["SUBSCRIBE", channel])?;
        self.stream.get_mut().set_read_timeout(Some(MESSAGE_TIMEOUT)).context("no time-out")
    }

    /// Waits a moment for the next message, and returns its payload. Fails once the connection is lost.
    pub fn message(&mut self) -> anyhow::Result<Option<String>> {
        match self.stream.fill_buf().map(<[u8]>::len) {
            Ok(0) => bail!("Redis has closed the connection"),
            Ok(_) => Ok(self.reply()?.pop()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error).context("the connection to Redis is lost"),
        }
    }
}

impl<S: Read> Connection<S> {
    fn reply(&mut self) -> anyhow::Result<Vec<String>> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).context("an empty answer")?;
        match kind {
            "+" | ":" => Ok(vec![rest.to_owned()]),
            "-" => bail!("Redis refuses: {rest}"),
            "$" => Ok(vec![self.text(rest)?]),
            "*" => {
                let mut all = Vec::new();
                for _ in 0..rest.parse::<u32>().context("no length")? {
                    all.extend(self.reply()?);
                }
                Ok(all)
            }
            _ => bail!("an answer that is not known: {line}"),
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("Redis does not answer")?;
        Ok(line.trim_end().to_owned())
    }

    /// A text of this length; empty where there is none.
    fn text(&mut self, length: &str) -> anyhow::Result<String> {
        let Ok(length) = length.parse::<usize>() else { return Ok(String::new()) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).context("Redis does not answer")?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
        Connection { stream: BufReader::new(bytes) }.reply()
    }

    #[test]
    fn answers_of_all_kinds_are_read() {
        assert_eq!(reply(b"+OK\r\n").expect("an answer"), ["OK"]);
        assert_eq!(reply(b":42\r\n").expect("an answer"), ["42"]);
        assert_eq!(reply(b"$-1\r\n").expect("an answer"), [""]);
        let message = b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$3\r\na\r\n\r\n";
        assert_eq!(reply(message).expect("an answer"), ["message", "ch", "a\r\n"]);
        assert!(reply(b"-ERR no\r\n").is_err() && reply(b"").is_err());
    }
}
