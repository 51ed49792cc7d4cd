//! The servers of one run: Redis, a database and Kafka as children, on ports and data of their own; for tests a Redis
//! Cluster too.

mod cluster;
mod kafka;
mod mariadb;
mod mysql;
mod redis;

use crate::{
    cli::{Database, PortArgs},
    fleet::Fleet,
    identity::Identity,
    ports::Ports,
    probe,
    servers::cluster::Cluster,
    ui::Step,
    workspace::{Workspace, remove_file},
};
use anyhow::Context;
use stampede_vocab::REDIS_USER;
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::servers::kafka::Listener;

/// How long a server may take to be ready: a crash recovery of a big data directory included.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A server gets this long to write its data down before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The file of a run with the environment of tests.
const TEST_ENVIRONMENT: &str = "test.env";

/// The name of the listener of Kafka for tests.
const TEST_LISTENER: &str = "TEST";
/// The host that it advertises, with its own port. Most of the time nothing listens there. On the host of all servers
/// another run would take such a port for a free one.
const TEST_LINK_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The account that the services and tests use, with all rights.
const ACCOUNT: &str = "stampede:stampede";

/// The password of the processes' user of Redis. Like the database, Redis listens on the loopback only.
const PASSWORD: &str = "stampede";

/// Creates the account, and lets it in from the loopback only.
const CREATE_ACCOUNT: &str = "CREATE USER IF NOT EXISTS 'stampede'@'127.0.0.1' IDENTIFIED BY 'stampede';\n\
     GRANT ALL ON *.* TO 'stampede'@'127.0.0.1' WITH GRANT OPTION;\n";

/// What a commit of the database survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    Full,
    /// The death of the database alone: of servers whose data are removed with their run.
    Relaxed,
}

/// Flags of both databases with which they flush the log once a second, and write no page twice.
const RELAXED: [&str; 3] =
    ["--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=O_DIRECT_NO_FSYNC", "--innodb-doublewrite=OFF"];

impl Durability {
    /// The flags that come after those of the database's own behaviour.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::Relaxed => &RELAXED,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Redis,
    /// MySQL or MariaDB.
    Database,
    Kafka,
}

/// The ports of one run's servers.
#[derive(Debug, Clone)]
pub struct ServerPorts {
    redis: u16,
    database: u16,
    kafka: u16,
    kafka_controller: u16,
    listeners: Vec<Listener>,
}

impl ServerPorts {
    /// Returns the port of a server.
    pub fn of(&self, server: Server) -> u16 {
        match server {
            Server::Redis => self.redis,
            Server::Database => self.database,
            Server::Kafka => self.kafka,
        }
    }

    /// Adds a listener to Kafka, for clients that connect through a proxy.
    pub fn add_listener(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    /// Adds the listener for tests, on a free port from `first` on. At the advertised address nothing listens until a
    /// test starts its proxy there.
    pub fn add_test_listener(&mut self, ports: &mut Ports, first: u16) -> anyhow::Result<()> {
        let port = ports.pick("the listener of Kafka for tests", None, first)?;
        let advertised = (TEST_LINK_HOST, port).into();
        self.add_listener(Listener { name: TEST_LISTENER.into(), port, advertised });
        Ok(())
    }

    fn test_listener(&self) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == TEST_LISTENER)
    }

    /// The ports that `up` and `demo` prefer.
    pub fn preferred(ports: &mut Ports, requested: &PortArgs) -> anyhow::Result<Self> {
        Ok(Self {
            redis: ports.pick("Redis", requested.redis_port, 7379)?,
            database: ports.pick("the database", requested.database_port, 7306)?,
            kafka: ports.pick("Kafka", requested.kafka_port, 7092)?,
            kafka_controller: ports.pick("Kafka's controller", None, 7093)?,
            listeners: Vec::new(),
        })
    }

    /// Ports from `first` on, for servers that need no known port.
    pub fn anywhere(ports: &mut Ports, first: u16) -> anyhow::Result<Self> {
        Ok(Self {
            redis: ports.pick("Redis", None, first)?,
            database: ports.pick("the database", None, first)?,
            kafka: ports.pick("Kafka", None, first)?,
            kafka_controller: ports.pick("Kafka's controller", None, first)?,
            listeners: Vec::new(),
        })
    }
}

/// Running servers, as their clients name them.
#[derive(Debug, Clone)]
pub struct Servers {
    database: Database,
    ports: ServerPorts,
    data: PathBuf,
    cluster: Option<Cluster>,
}

impl Servers {
    /// Starts all three side by side, and returns when all are ready.
    pub fn start(
        fleet: &mut Fleet,
        workspace: &Workspace,
        database: Database,
        ports: ServerPorts,
    ) -> anyhow::Result<Self> {
        Self::start_with(fleet, workspace, (database, Durability::Full), ports)
    }

    /// The same for a run whose data are removed at its end. Tests make thousands of tables.
    pub fn start_for_tests(
        fleet: &mut Fleet,
        workspace: &Workspace,
        database: Database,
        ports: ServerPorts,
    ) -> anyhow::Result<Self> {
        Self::start_with(fleet, workspace, (database, Durability::Relaxed), ports)
    }

    fn start_with(
        fleet: &mut Fleet,
        workspace: &Workspace,
        (database, durability): (Database, Durability),
        ports: ServerPorts,
    ) -> anyhow::Result<Self> {
        let identity = Identity::for_servers(workspace)?;
        let servers = Self { database, ports, data: data_of(fleet.run(), database), cluster: None };
        let (data, ports) = (&servers.data, &servers.ports);

        let step = Step::begin("redis", "starting");
        fleet.start(redis::launch(data, identity, ports.redis)?)?;
        servers.wait_ready(fleet, Server::Redis)?;
        step.done(&servers.admin_redis_url());

        let database_step = Step::begin(database.name(), "starting");
        fleet.start(match database {
            Database::Mysql => mysql::launch(workspace, data, identity, ports.database, durability)?,
            Database::Mariadb => mariadb::launch(data, identity, ports.database, durability)?,
        })?;
        let kafka_step = Step::begin("kafka", "starting");
        fleet.start(kafka::launch(workspace, data, identity, ports)?)?;
        servers.wait_ready(fleet, Server::Database)?;
        database_step.done(&servers.database_url());
        servers.wait_ready(fleet, Server::Kafka)?;
        kafka_step.done(&servers.kafka_brokers());
        Ok(servers)
    }

    /// Waits until a server answers.
    pub fn wait_ready(&self, fleet: &mut Fleet, server: Server) -> anyhow::Result<()> {
        let port = self.ports.of(server);
        let ready: fn(u16) -> bool = match server {
            Server::Redis => probe::redis,
            Server::Database => probe::database,
            Server::Kafka => probe::kafka,
        };
        fleet.wait_ready(self.name(server), READY_TIMEOUT, || ready(port))
    }

    /// The name of a server in the fleet, and of the folder of its data.
    pub fn name(&self, server: Server) -> &'static str {
        match server {
            Server::Redis => "redis",
            Server::Database => self.database.name(),
            Server::Kafka => "kafka",
        }
    }

    /// The folder in which a server keeps its data.
    pub fn folder(&self, server: Server) -> PathBuf {
        self.data.join(self.name(server))
    }

    /// The folder of the socket file by which the root of the database comes in, without a password, and its name.
    pub fn socket(&self) -> (PathBuf, String) {
        (self.folder(Server::Database).join("data"), format!("{}.sock", self.name(Server::Database)))
    }

    /// Starts a cluster beside them, for all that tests keep in Redis but the timers of events. Its ports are from
    /// `first` on.
    pub fn add_cluster(
        &mut self,
        fleet: &mut Fleet,
        workspace: &Workspace,
        ports: &mut Ports,
        first: u16,
    ) -> anyhow::Result<()> {
        let identity = Identity::for_servers(workspace)?;
        self.cluster = Some(Cluster::start(fleet, &self.data, identity, ports, first)?);
        Ok(())
    }

    /// Returns the environment by which tests find the servers, and their listener of Kafka if there is one.
    pub fn test_environment(&self) -> Vec<(String, String)> {
        let (redis_url, admin_redis_url) = match &self.cluster {
            Some(cluster) => (cluster.url(), cluster.admin_url()),
            None => (self.redis_url(), self.admin_redis_url()),
        };
        let servers = [
            ("STAMPEDE_TEST_DATABASE_URL", self.database_url()),
            ("STAMPEDE_TEST_REDIS_URL", redis_url),
            ("STAMPEDE_TEST_ADMIN_REDIS_URL", admin_redis_url),
            ("STAMPEDE_TEST_EVENT_REDIS_URL", self.event_redis_url()),
            ("STAMPEDE_TEST_ADMIN_EVENT_REDIS_URL", format!("{}/1", self.admin_redis_url())),
            ("STAMPEDE_TEST_KAFKA_BROKERS", self.kafka_brokers()),
        ];
        let listener = self.ports.test_listener().into_iter().flat_map(|listener| {
            [
                ("STAMPEDE_TEST_KAFKA_LISTENER", format!("127.0.0.1:{}", listener.port)),
                ("STAMPEDE_TEST_KAFKA_LINK", listener.advertised.to_string()),
            ]
        });
        servers.into_iter().chain(listener).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Writes the same as a script for a shell to source, and for `cargo xtask test --up` to read.
    pub fn write_test_environment(&self, run: &Path) -> anyhow::Result<()> {
        let lines = self.test_environment().into_iter().map(|(name, value)| format!("export {name}={value}\n"));
        let script: String = lines.collect();
        let file = run.join(TEST_ENVIRONMENT);
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Removes it when its servers stop.
    pub fn remove_test_environment(run: &Path) -> anyhow::Result<()> {
        remove_file(&run.join(TEST_ENVIRONMENT))
    }

    /// Reads the file of [`Servers::write_test_environment`].
    pub fn read_test_environment(run: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let file = run.join(TEST_ENVIRONMENT);
        let script = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let assigned = script.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        Ok(assigned.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The folder of their data and of the journal of the payment sandbox, which must agree with each other.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Redis, without a logical database, for the processes.
    pub fn redis_url(&self) -> String {
        format!("redis://{REDIS_USER}:{PASSWORD}@127.0.0.1:{}", self.ports.redis)
    }

    /// The same for who may do everything, which is everybody on this machine. There is no password in it.
    pub fn admin_redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.ports.redis)
    }

    /// The logical database of Redis that event timers are in, for the processes.
    pub fn event_redis_url(&self) -> String {
        format!("{}/1", self.redis_url())
    }

    /// The database server, without a schema.
    pub fn database_url(&self) -> String {
        format!("mysql://{ACCOUNT}@127.0.0.1:{}", self.ports.database)
    }

    pub fn kafka_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.kafka)
    }
}

/// Starts Redis without the others, with data of its own, and returns its URL for the processes.
pub fn start_redis(fleet: &mut Fleet, workspace: &Workspace, port: u16) -> anyhow::Result<String> {
    let step = Step::begin("redis", "starting");
    let launch = redis::launch(&fleet.run().join("data"), Identity::for_servers(workspace)?, port)?;
    fleet.start(launch)?;
    fleet.wait_ready("redis", READY_TIMEOUT, || probe::redis(port))?;
    step.done(&format!("redis://127.0.0.1:{port}"));
    Ok(format!("redis://{REDIS_USER}:{PASSWORD}@127.0.0.1:{port}/0"))
}

/// Redis, Kafka and the payment provider hold state about the orders of one database. Each kind of database has all of
/// them to itself, so a run on the other kind finds nothing that it does not know of.
fn data_of(run: &Path, database: Database) -> PathBuf {
    run.join(format!("data-{}", database.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    #[test]
    fn no_data_is_shared_between_databases() {
        let run = Path::new("/run");
        assert_ne!(data_of(run, Database::Mysql), data_of(run, Database::Mariadb));
    }

    #[test]
    fn tests_get_both_addresses_of_their_listener_of_kafka() {
        let mut free = Ports::default();
        let mut ports = ServerPorts::anywhere(&mut free, 30_400).expect("ports are free");
        let environment = |ports: ServerPorts| -> Vec<String> {
            let servers = Servers { database: Database::Mysql, ports, data: PathBuf::new(), cluster: None };
            servers.test_environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let without = environment(ports.clone());
        ports.add_test_listener(&mut free, 30_400).expect("ports are free");
        let listener = ports.test_listener().expect("it was added").clone();
        let with = environment(ports);
        assert!(with.starts_with(&without), "{with:?}");
        let told = [
            format!("STAMPEDE_TEST_KAFKA_LISTENER=127.0.0.1:{}", listener.port),
            format!("STAMPEDE_TEST_KAFKA_LINK=127.0.0.2:{}", listener.port),
        ];
        assert_eq!(with[without.len()..], told);
    }

    #[test]
    fn no_other_run_takes_the_address_that_tests_are_to_listen_at() {
        let listener_of_a_run = || {
            let mut free = Ports::default();
            let mut ports = ServerPorts::anywhere(&mut free, 30_600).expect("ports are free");
            ports.add_test_listener(&mut free, 30_600).expect("ports are free");
            ports.test_listener().expect("it was added").clone()
        };
        let one = listener_of_a_run();
        // Kafka listens, and no test does.
        let _kafka = TcpListener::bind((Ipv4Addr::LOCALHOST, one.port)).expect("the port is free");
        let other = listener_of_a_run();
        assert_ne!(SocketAddr::from((Ipv4Addr::LOCALHOST, other.port)), one.advertised);
        assert_ne!(other.advertised, one.advertised);
    }
}
