//! How Redis is started for development: as the services demand it.

use std::path::Path;

use anyhow::Context;

use crate::identity::Identity;
use crate::launch::{Launch, Tier};
use crate::servers::STOP_TIMEOUT;
use crate::shell;

/// A Redis that persists its data, evicts nothing and publishes expired keys.
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
        ["--databases", "16"],
    ];
    Ok(Launch {
        name: "redis".into(),
        tier: Tier::Server,
        program: shell::find_program("redis-server").context("redis-server is gone; run cargo xtask setup")?,
        args: args.concat().into_iter().map(Into::into).collect(),
        env: Vec::new(),
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}
