//! Makes a machine ready: checks each requirement, and installs missing ones through apt, Maven, pip and cargo. It
//! prints each step before it starts, is quick when there is nothing to do, and writes only to `.stampede/tools` and
//! through apt.

pub mod apt;
mod kafka;
mod load;
pub mod mysql;
pub mod requirement;
pub mod tools;

use crate::{
    cli::Database,
    identity::Identity,
    setup::requirement::{Probe, Requirement},
    ui::{Step, say},
    workspace::Workspace,
};

pub use crate::setup::kafka::{fetch as fetch_kafka, libraries as kafka_libraries};
pub use crate::setup::load::{compose, ghz, h2spec, jmeter, wrk};

const REDIS: [Requirement; 1] = [Requirement {
    what: "Redis 7 or later",
    probe: Probe::Least("redis-server", (7, 0)),
    packages: &["redis-server"],
}];

/// Every child is started through it: it changes the account and ties the child to its supervisor.
const SUPERVISION: [Requirement; 1] =
    [Requirement { what: "setpriv", probe: Probe::Program("setpriv"), packages: &["util-linux"] }];

const MARIADB: [Requirement; 2] = [
    Requirement {
        what: "MariaDB 10.11 or later",
        probe: Probe::Least("mariadbd", (10, 11)),
        packages: &["mariadb-server"],
    },
    Requirement {
        what: "MariaDB's installer of data directories",
        probe: Probe::Program("mariadb-install-db"),
        packages: &["mariadb-server"],
    },
];

/// The C parts of librdkafka and aws-lc; everything else that the build needs comes with cargo.
const BUILD: [Requirement; 3] = [
    Requirement { what: "a C compiler", probe: Probe::Program("cc"), packages: &["gcc"] },
    Requirement { what: "a C++ compiler", probe: Probe::Program("c++"), packages: &["g++"] },
    Requirement { what: "make", probe: Probe::Program("make"), packages: &["make"] },
];

/// Provides the requirements of the build, the servers and the checks.
pub fn everything(workspace: &Workspace, database: Database) -> anyhow::Result<()> {
    let mut requirements = for_servers(database);
    requirements.extend(tools::REQUIREMENTS);
    apt::provide(&requirements)?;
    fetch_servers(workspace, database)?;
    tools::fetch(workspace)
}

/// Provides the requirements of the build alone.
pub fn compiler() -> anyhow::Result<()> {
    apt::provide(&BUILD)
}

/// Provides the requirements of the build and Redis.
pub fn redis() -> anyhow::Result<()> {
    apt::provide(&[&BUILD[..], &SUPERVISION, &REDIS].concat())
}

/// Provides the requirements of the build and of the checks that need no server.
pub fn checks(workspace: &Workspace) -> anyhow::Result<()> {
    apt::provide(&[&BUILD[..], &tools::REQUIREMENTS].concat())?;
    tools::fetch(workspace)
}

/// Provides the requirements of the build and the servers alone: enough for `up` and `demo`.
pub fn servers(workspace: &Workspace, database: Database) -> anyhow::Result<()> {
    apt::provide(&for_servers(database))?;
    fetch_servers(workspace, database)
}

fn for_servers(database: Database) -> Vec<Requirement> {
    let database = match database {
        Database::Mysql => mysql::requirements(),
        Database::Mariadb => &MARIADB[..],
    };
    [&BUILD[..], &SUPERVISION, &REDIS, database, &kafka::REQUIREMENTS].concat()
}

fn fetch_servers(workspace: &Workspace, database: Database) -> anyhow::Result<()> {
    let step = Step::begin("servers", "looking for the servers");
    let identity = Identity::for_servers(workspace)?;
    if identity.is_root() {
        let private = workspace.private();
        say(&format!(
            "note: the user nobody cannot enter {}, so the servers run as root; a directory above lacks o+x",
            private.display()
        ));
    }
    if database == Database::Mysql {
        mysql::provide(workspace, identity)?;
    }
    kafka::fetch(workspace)?;
    step.done(&format!("Redis, {} and Kafka are here", database.name()));
    Ok(())
}
