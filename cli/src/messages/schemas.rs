//! The schemas of all services, each with its own connection pool, so that no statement names a schema.

use crate::prepare::{check_name, with_schema};
use anyhow::Context;
use sqlx::{FromRow, mysql::MySqlRow};
use stampede_db::{Database, DbConfig, Statement};
use stampede_vocab::Service;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Timeout of a connection, of a statement, and of a transaction.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The database of the services, and the prefixes of names.
#[derive(Debug, Clone, clap::Args)]
pub struct Server {
    /// The database server, without a schema, with the right to read and write: mysql://user:password@host:port
    #[arg(long, env = "STAMPEDE_ADMIN_DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// Prefix of schema names
    #[arg(long, env = "STAMPEDE_SCHEMA_PREFIX", default_value = "stampede_")]
    schema_prefix: String,

    /// Prefix of topic names
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,
}

pub struct Schemas {
    server_url: String,
    prefix: String,
    /// In the order of [`Service::ALL`].
    opened: [OnceCell<Database>; Service::ALL.len()],
}

impl Schemas {
    /// Returns the schemas on this server. Each is connected to on first use.
    pub fn new(server: &Server) -> Self {
        Self {
            server_url: server.database_url.clone(),
            prefix: server.schema_prefix.clone(),
            opened: Service::ALL.map(|_| OnceCell::new()),
        }
    }

    /// Returns the schema of a service. Fails if the server does not answer in time, or has no such schema.
    pub async fn of(&self, service: Service) -> anyhow::Result<&Database> {
        // Boxed: otherwise the future of every command would include it.
        self.opened[service as usize].get_or_try_init(|| Box::pin(self.open(service))).await
    }

    async fn open(&self, service: Service) -> anyhow::Result<Database> {
        let schema = format!("{}{service}", self.prefix);
        check_name(&schema)?;
        let config =
            DbConfig { max_connections: 2, acquire_timeout: TIMEOUT, work_timeout: TIMEOUT, idle_timeout: 2 * TIMEOUT };
        Database::connect(&with_schema(&self.server_url, &schema), config)
            .await
            .context("the database cannot be reached: check --database-url and --schema-prefix")
    }

    /// Returns the rows that a query yields in the schema of a service. `what` names them in an error.
    pub async fn read<T>(&self, service: Service, what: &str, mut query: Statement) -> anyhow::Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, MySqlRow>,
    {
        let db = self.of(service).await?;
        let rows = db.run("read_messages", |mut conn| async move { query.fetch_all(&mut conn).await });
        rows.await.with_context(|| format!("{what} of {service} cannot be read"))
    }
}
