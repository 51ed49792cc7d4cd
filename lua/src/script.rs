//! A script as source, and the arguments it is run with.

use redis::{Cmd, ToRedisArgs};
use std::sync::OnceLock;

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
        call.arg(arg.as_slice());
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
pub struct Args(Vec<Vec<u8>>);

impl Args {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The arguments with `value` behind them.
    #[must_use]
    pub fn with(mut self, value: impl ToRedisArgs) -> Self {
        self.push(value);
        self
    }

    /// Puts `value` behind the others.
    pub fn push(&mut self, value: impl ToRedisArgs) {
        self.0.extend(value.to_redis_args());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn values(&self) -> &[Vec<u8>] {
        &self.0
    }
}
