//! How Redis is started for development: as the services demand it.

use crate::{
    identity::Identity,
    launch::{Launch, Tier},
    servers::{PASSWORD, STOP_TIMEOUT},
    shell,
};
use anyhow::Context;
use stampede_vocab::{REDIS_USER, redis_rules};
use std::{ffi::OsString, path::Path};

/// A setting by its flag, and its value.
type Setting<'a> = [&'a str; 2];

/// Of every server: it evicts nothing and frees large keys beside its other work.
const BEHAVIOUR: [Setting<'static>; 6] = [
    ["--bind", "127.0.0.1"],
    ["--save", ""],
    ["--maxmemory-policy", "noeviction"],
    ["--lazyfree-lazy-expire", "yes"],
    ["--lazyfree-lazy-user-del", "yes"],
    ["--lazyfree-lazy-server-del", "yes"],
];

/// A Redis that persists its data and publishes expired keys. The processes have a user who may do what they need and
/// nothing else; the default user is for whoever looks into it.
///
/// The append-only file is synced each second: what a power loss takes with it, the ledger gives
/// back, so a sync for each write would only cost speed.
pub fn launch(data: &Path, identity: Identity, port: u16) -> anyhow::Result<Launch> {
    let settings = [
        ["--appendonly", "yes"],
        ["--appendfsync", "everysec"],
        ["--notify-keyspace-events", "Ex"],
        ["--databases", "16"],
    ];
    launch_with("redis", &settings, data, identity, port)
}

/// A node of a cluster for tests, which stores nothing. It waits for no replica when it stops.
pub fn launch_node(name: &str, data: &Path, identity: Identity, port: u16, bus_port: u16) -> anyhow::Result<Launch> {
    let bus_port = bus_port.to_string();
    let settings: [Setting<'_>; 7] = [
        ["--cluster-enabled", "yes"],
        ["--cluster-port", &bus_port],
        ["--cluster-announce-ip", "127.0.0.1"],
        ["--cluster-require-full-coverage", "no"],
        ["--repl-diskless-sync-delay", "0"],
        ["--shutdown-timeout", "0"],
        ["--appendonly", "no"],
    ];
    launch_with(name, &settings, data, identity, port)
}

fn launch_with(
    name: &str,
    settings: &[Setting<'_>],
    data: &Path,
    identity: Identity,
    port: u16,
) -> anyhow::Result<Launch> {
    let data = data.join(name);
    identity.own_directory(&data)?;
    let (data, port) = (data.display().to_string(), port.to_string());
    let place: [Setting<'_>; 2] = [["--port", &port], ["--dir", &data]];
    let args = [&BEHAVIOUR[..], &place, settings, &[["--user", REDIS_USER]]].concat();
    let args = args.concat().into_iter().map(OsString::from);
    Ok(Launch {
        name: name.to_owned(),
        tier: Tier::Server,
        program: shell::find_program("redis-server").context("redis-server is gone; run cargo xtask setup")?,
        args: args.chain(redis_rules(PASSWORD).into_iter().map(OsString::from)).collect(),
        env: Vec::new(),
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}
