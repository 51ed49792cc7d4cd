//! A script as source, and the arguments it is run with.

use redis::{Cmd, ToRedisArgs};
use std::sync::OnceLock;

/// A script of `lua/`, known to a server by its hash once it has run there.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    takes_run_id: bool,
    source: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// The script `name` (its path below `lua/` without the ending) with its source.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, takes_run_id: false, source, hash: OnceLock::new() }
    }

    /// The same for a script that relies on what Redis has, with `run_id.lua` at the head of its source: its last
    /// argument is the run id of the server that it runs on, which is another one after a restart or a failover.
    pub const fn with_run_id(name: &'static str, source: &'static str) -> Self {
        Self { name, takes_run_id: true, source, hash: OnceLock::new() }
    }

    /// Name for errors and metrics.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a call by its hash, which fails with NOSCRIPT on a server that does not know it. The run id is that of
    /// the server, or empty if only the script can tell on which one it runs.
    pub(crate) fn by_hash(&self, keys: &[String], args: &Args, run_id: &str) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(self.source).get_hash().to_owned());
        self.call("EVALSHA", hash, keys, args, run_id)
    }

    /// Returns a call by its source, after which the server knows the hash. One call, unlike SCRIPT LOAD, reaches the
    /// node that has the keys, and needs no other node.
    pub(crate) fn by_source(&self, keys: &[String], args: &Args, run_id: &str) -> Cmd {
        self.call("EVAL", self.source, keys, args, run_id)
    }

    fn call(&self, command: &str, script: &str, keys: &[String], args: &Args, run_id: &str) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(script).arg(keys.len());
        for key in keys {
            call.arg(key.as_str());
        }
        for arg in args.values() {
            call.arg(arg.as_slice());
        }
        if self.takes_run_id {
            call.arg(run_id);
        }
        call
    }
}

/// Declares the script of a file as a static: `script!(HOLDS, "stock/holds")`, or `script!(RESERVE, "stock/reserve",
/// with_run_id)` for one that takes the run id of the server.
macro_rules! script {
    ($name:ident, $path:literal, with_run_id) => {
        static $name: crate::Script = crate::Script::with_run_id(
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
