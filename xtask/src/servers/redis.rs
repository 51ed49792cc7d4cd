//! How Redis is started for development: as the services demand it.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use stampede_vocab::{REDIS_USER, redis_rules};

use crate::identity::Identity;
use crate::launch::{Launch, Tier};
use crate::servers::{PASSWORD, STOP_TIMEOUT};
use crate::shell;

/// A Redis that persists its data, evicts nothing, publishes expired keys and frees large ones beside its other work. The
/// processes have a user who may do what they need and nothing else; the default user is for whoever looks into it.
///
/// The append-only file is synced each second: what a power loss takes with it, the ledger gives
/// back, so a sync for each write would only cost speed.
pub fn launch(data: &Path, identity: Identity, port: u16) -> anyhow::Result<Launch> {
    let data = data.join("redis");
    identity.own_directory(&data)?;
    let data = data.display().to_string();
    let port = port.to_string();
    let args = [
        ["--bind", "127.0.0.1"],
        ["--port", &port],
        ["--dir", &data],
        ["--save", ""],
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--maxmemory-policy", "noeviction"],
        ["--notify-keyspace-events", "Ex"],
        ["--lazyfree-lazy-expire", "yes"],
        ["--lazyfree-lazy-user-del", "yes"],
        ["--lazyfree-lazy-server-del", "yes"],
        ["--databases", "16"],
        ["--user", REDIS_USER],
    ];
    let args = args.concat().into_iter().map(OsString::from);
    Ok(Launch {
        name: "redis".into(),
        tier: Tier::Server,
        program: shell::find_program("redis-server").context("redis-server is gone; run cargo xtask setup")?,
        args: args.chain(redis_rules(PASSWORD).into_iter().map(OsString::from)).collect(),
        env: Vec::new(),
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}
