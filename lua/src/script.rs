//! A script as source, and the arguments it is run with.

use redis::ToRedisArgs;

/// A script of `lua/`, known to the server by its hash once it has run.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    takes_run_id: bool,
    inner: std::sync::LazyLock<redis::Script>,
}

impl Script {
    /// The script `name` (its path below `lua/` without the ending) with its source.
    pub const fn new(name: &'static str, inner: fn() -> redis::Script) -> Self {
        Self { name, takes_run_id: false, inner: std::sync::LazyLock::new(inner) }
    }

    /// The same for a script that relies on what Redis has: its last argument is the run id of the server that it runs
    /// on, which is another one after a restart or a failover.
    pub const fn with_run_id(name: &'static str, inner: fn() -> redis::Script) -> Self {
        Self { name, takes_run_id: true, inner: std::sync::LazyLock::new(inner) }
    }

    /// Name for errors and metrics.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn takes_run_id(&self) -> bool {
        self.takes_run_id
    }

    pub(crate) fn inner(&self) -> &redis::Script {
        &self.inner
    }
}

/// Declares the script of a file as a static: `script!(HOLDS, "stock/holds")`, or `script!(RESERVE, "stock/reserve",
/// with_run_id)` for one that takes the run id of the server.
macro_rules! script {
    ($name:ident, $path:literal, with_run_id) => {
        static $name: crate::Script =
            crate::Script::with_run_id($path, || ::redis::Script::new(include_str!(concat!("../", $path, ".lua"))));
    };
    ($name:ident, $path:literal) => {
        static $name: crate::Script =
            crate::Script::new($path, || ::redis::Script::new(include_str!(concat!("../", $path, ".lua"))));
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
