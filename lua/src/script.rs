//! A script as source, and its arguments.

use redis::{Cmd, RedisWrite, ToRedisArgs};
use std::{
    fmt::Display,
    io::{self, Write},
    iter,
    sync::OnceLock,
};

/// A script of `lua/`, known to a server by its hash once it has run there.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// The script `name` (its path below `lua/` without the ending) with its source.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, hash: OnceLock::new() }
    }

    /// Name for errors and metrics.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a call by its hash, which fails with NOSCRIPT on a server that does not know it.
    pub(crate) fn by_hash(&self, keys: &[String], args: &Args) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(self.source).get_hash().to_owned());
        call("EVALSHA", hash, keys, args)
    }

    /// Returns a call by its source, after which the server knows the hash. One call, unlike SCRIPT LOAD, reaches the
    /// node that has the keys, and needs no other node.
    pub(crate) fn by_source(&self, keys: &[String], args: &Args) -> Cmd {
        call("EVAL", self.source, keys, args)
    }
}

fn call(command: &str, script: &str, keys: &[String], args: &Args) -> Cmd {
    let mut call = redis::cmd(command);
    call.arg(script).arg(keys.len());
    for key in keys {
        call.arg(key.as_str());
    }
    for arg in args.values() {
        call.arg(arg);
    }
    call
}

/// Declares the script of a file as a static: `script!(HOLDS, "stock/holds")`, or `script!(RESERVE, "stock/reserve",
/// with_run_id)` for one that relies on what Redis has, behind `run_id.lua`.
macro_rules! script {
    ($name:ident, $path:literal, with_run_id) => {
        static $name: crate::Script = crate::Script::new(
            $path,
            concat!(include_str!("../run_id.lua"), include_str!(concat!("../", $path, ".lua"))),
        );
    };
    ($name:ident, $path:literal) => {
        static $name: crate::Script = crate::Script::new($path, include_str!(concat!("../", $path, ".lua")));
    };
}
pub(crate) use script;

/// The ARGV of one call, built up in order.
#[derive(Debug, Default, Clone)]
pub struct Args(Packed);

impl Args {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the arguments with `value` appended.
    #[must_use]
    pub fn with(mut self, value: impl ToRedisArgs) -> Self {
        self.push(value);
        self
    }

    /// Appends `value`.
    pub fn push(&mut self, value: impl ToRedisArgs) {
        value.write_redis_args(&mut self.0);
    }

    /// Appends the text of `value`, such as an id.
    pub fn push_text(&mut self, value: impl Display) {
        self.0.write_arg_fmt(value);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.ends.is_empty()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        let Packed { bytes, ends } = &self.0;
        let starts = iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(move |(start, end)| &bytes[start..*end])
    }
}

/// The arguments as one text, and where each of them ends: a batch has hundreds, which would be as many allocations.
#[derive(Debug, Default, Clone)]
struct Packed {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl RedisWrite for Packed {
    fn write_arg(&mut self, arg: &[u8]) {
        self.bytes.extend_from_slice(arg);
        self.ends.push(self.bytes.len());
    }

    fn write_arg_fmt(&mut self, arg: impl Display) {
        write!(self.bytes, "{arg}").expect("a vector takes any text");
        self.ends.push(self.bytes.len());
    }

    fn writer_for_next_arg(&mut self) -> impl Write + '_ {
        self.ends.push(self.bytes.len());
        LastArg(self)
    }
}

/// Appends to the text of the last argument.
struct LastArg<'a>(&'a mut Packed);

impl Write for LastArg<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let Packed { bytes, ends } = &mut *self.0;
        bytes.extend_from_slice(part);
        if let Some(end) = ends.last_mut() {
            *end = bytes.len();
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_argument_is_as_it_was_put() {
        let mut args = Args::new().with("text").with("").with(7_u64).with(&["a", "bc"][..]);
        args.push_text(1.5);
        args.0.writer_for_next_arg().write_all(b"parts").expect("a vector takes any text");
        assert_eq!(args.len(), 7);
        let values: Vec<_> = args.values().collect();
        let expected: [&[u8]; 7] = [b"text", b"", b"7", b"a", b"bc", b"1.5", b"parts"];
        assert_eq!(values, expected);
    }
}
