//! The schemas of all services, over one connection.

use crate::prepare::{check_name, with_schema};
use anyhow::Context;
use sqlx::{FromRow, MySql, QueryBuilder, mysql::MySqlRow};
use stampede_db::{Database, DbConfig, DbError};
use stampede_vocab::Service;
use std::time::Duration;

/// Longest wait for the database, and for one statement or transaction.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the messages are.
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

/// The schemas of all services.
pub struct Schemas {
    /// A connection from which every schema is reached by its full name.
    pub db: Database,
    prefix: String,
}

impl Schemas {
    /// Connects to the database server.
    pub async fn connect(server: &Server) -> anyhow::Result<Self> {
        let schema = format!("{}{}", server.schema_prefix, Service::Order);
        check_name(&schema)?;
        let config =
            DbConfig { max_connections: 2, acquire_timeout: TIMEOUT, work_timeout: TIMEOUT, idle_timeout: 2 * TIMEOUT };
        let db = Database::connect(&with_schema(&server.database_url, &schema), config)
            .await
            .context("the database cannot be reached: check --database-url and --schema-prefix")?;
        Ok(Self { db, prefix: server.schema_prefix.clone() })
    }

    /// The full name of a table of a service.
    pub fn table(&self, service: Service, table: &str) -> String {
        format!("`{}{service}`.{table}", self.prefix)
    }

    /// The table of what `consumer` could not apply.
    pub fn letters(&self, consumer: Service) -> String {
        self.table(consumer, "dead_letters")
    }

    /// The rows that a query yields. `what` is what it reads, for the error.
    pub async fn read<T>(&self, what: &str, mut query: QueryBuilder<MySql>) -> anyhow::Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
    {
        let rows = async {
            let mut connection = self.db.acquire().await?;
            Ok::<_, DbError>(query.build_query_as::<T>().fetch_all(&mut *connection).await?)
        };
        self.db.in_time("read_messages", rows).await.with_context(|| format!("{what} cannot be read"))
    }
}
