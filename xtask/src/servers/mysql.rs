//! How MySQL is started for development: durable, on the loopback, without TLS.

use crate::{
    identity::Identity,
    launch::{Launch, Tier},
    servers::{CREATE_ACCOUNT, Durability, STOP_TIMEOUT},
    setup::mysql::Server,
    shell,
    workspace::{Workspace, make_directory},
};
use anyhow::Context;
use std::{fs, path::Path, process::Command};

/// Flags that set MySQL's own behaviour. Every commit reaches the disk, unless durability is relaxed; there is no
/// binary log, as nothing replicates from here.
const BEHAVIOUR: [&str; 19] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--mysqlx=OFF",
    // A statement over one TLS record stalls sqlx for 44 ms; on the loopback nothing is to be hidden.
    "--skip-ssl",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=256M",
    "--innodb-redo-log-capacity=512M",
    // Data past the page cache, and each commit as one write and one flush by its own thread: the log's own threads
    // take the two cores from the rest.
    "--innodb-flush-method=O_DIRECT",
    "--innodb-log-writer-threads=OFF",
    "--innodb-use-fdatasync=ON",
    "--innodb-adaptive-hash-index=OFF",
    "--transaction-isolation=READ-COMMITTED",
    "--default-time-zone=+00:00",
    "--character-set-server=utf8mb4",
    "--max-connections=400",
    "--performance-schema=OFF",
    "--log-error-verbosity=2",
    "--console",
];

/// A MySQL on its own data directory, which is made from the template the first time.
pub fn launch(
    workspace: &Workspace,
    data: &Path,
    identity: Identity,
    port: u16,
    durability: Durability,
) -> anyhow::Result<Launch> {
    let server = Server::ready(workspace, identity)?;
    let home = data.join("mysql");
    identity.own_directory(&home)?;
    let data = home.join("data");
    if !data.exists() {
        copy_template(&server.template, &data)?;
    }
    let start_file = home.join("start.sql");
    fs::write(&start_file, CREATE_ACCOUNT).with_context(|| format!("cannot write {}", start_file.display()))?;
    let mut args = server.base_args.clone();
    args.extend(BEHAVIOUR.iter().chain(durability.flags()).copied().map(String::from));
    args.extend([
        format!("--port={port}"),
        format!("--datadir={}", data.display()),
        format!("--init-file={}", start_file.display()),
        format!("--pid-file={}", home.join("mysqld.pid").display()),
        // Relative to the data directory: an absolute path may be too long for a socket's name.
        "--socket=mysql.sock".into(),
    ]);
    if identity.is_root() {
        args.push("--user=root".into());
    }
    Ok(Launch {
        name: "mysql".into(),
        tier: Tier::Server,
        env: server.env(),
        program: server.program,
        args: args.into_iter().map(Into::into).collect(),
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}

/// Copies with owners and holes kept, under another name first: half a copy is never taken for data.
fn copy_template(template: &Path, data: &Path) -> anyhow::Result<()> {
    let scratch = data.with_extension("new");
    crate::workspace::remove_directory(&scratch)?;
    make_directory(data.parent().context("a data directory has a parent")?)?;
    shell::quiet(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(template).arg(&scratch))?;
    // Each copy is a server of its own.
    let marker = scratch.join("auto.cnf");
    if marker.exists() {
        fs::remove_file(&marker).with_context(|| format!("cannot remove {}", marker.display()))?;
    }
    fs::rename(&scratch, data).with_context(|| format!("cannot make {}", data.display()))
}
