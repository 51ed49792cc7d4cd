//! How MariaDB is started for development: durable, on the loopback, without TLS.

use crate::{
    identity::Identity,
    launch::{Launch, Tier},
    servers::{CREATE_ACCOUNT, Durability, STOP_TIMEOUT},
    shell,
    workspace::remove_directory,
};
use anyhow::Context;
use std::{fs, path::Path};

/// Flags that set MariaDB's own behaviour, the same as MySQL's in their effect.
const BEHAVIOUR: [&str; 12] = [
    "--bind-address=127.0.0.1",
    "--skip-networking=0",
    "--skip-name-resolve",
    "--skip-ssl",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=256M",
    "--innodb-log-file-size=256M",
    "--transaction-isolation=READ-COMMITTED",
    "--default-time-zone=+00:00",
    "--character-set-server=utf8mb4",
    "--max-connections=400",
];

/// A MariaDB on its own data directory, which is made the first time: that takes half a second.
pub fn launch(data: &Path, identity: Identity, port: u16, durability: Durability) -> anyhow::Result<Launch> {
    let home = data.join("mariadb");
    identity.own_directory(&home)?;
    let data = home.join("data");
    if !data.exists() {
        initialise(&data, identity)?;
    }
    let start_file = home.join("start.sql");
    fs::write(&start_file, CREATE_ACCOUNT).with_context(|| format!("cannot write {}", start_file.display()))?;
    let mut args = vec!["--no-defaults".to_owned()];
    args.extend(BEHAVIOUR.iter().chain(durability.flags()).copied().map(String::from));
    args.extend([
        format!("--port={port}"),
        format!("--datadir={}", data.display()),
        format!("--init-file={}", start_file.display()),
        format!("--pid-file={}", home.join("mariadbd.pid").display()),
        // Relative to the data directory: an absolute path may be too long for a socket's name.
        "--socket=mariadb.sock".into(),
    ]);
    if identity.is_root() {
        args.push("--user=root".into());
    }
    Ok(Launch {
        name: "mariadb".into(),
        tier: Tier::Server,
        program: shell::find_program("mariadbd")
            .context("mariadbd is gone; run cargo xtask setup --database mariadb")?,
        args: args.into_iter().map(Into::into).collect(),
        env: Vec::new(),
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}

fn initialise(data: &Path, identity: Identity) -> anyhow::Result<()> {
    let installer = shell::find_program("mariadb-install-db")
        .context("mariadb-install-db is gone; run cargo xtask setup --database mariadb")?;
    let scratch = data.with_extension("new");
    remove_directory(&scratch)?;
    let mut command = identity.command(&installer);
    command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    command.arg(format!("--datadir={}", scratch.display()));
    if identity.is_root() {
        command.arg("--user=root");
    }
    shell::quiet(&mut command)?;
    fs::rename(&scratch, data).with_context(|| format!("cannot make {}", data.display()))
}
