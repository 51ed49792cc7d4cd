//! The sources of the audit: all schemas over one connection, Redis, Kafka, and their names.

use super::{Args, named::Named};
use crate::kafka::Groups;
use anyhow::Context;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Encode, MySql, Row, Type, mysql::MySqlRow};
use stampede_db::{Database, DbConfig};
use stampede_lua::{Redis, RedisConfig};
use stampede_vocab::{CampaignId, CouponId, EventId, ItemId, OrderId, PaymentId, Service};
use std::time::Duration;

/// The sources that an audit reads.
pub struct Sources {
    /// A connection from which every schema is reached by its full name.
    pub db: Database,
    /// Stock and coupons.
    pub redis: Redis,
    /// Topics and consumer groups.
    pub kafka: Groups,
    schema_prefix: String,
}

impl Sources {
    /// Connects to the databases, to Redis and to Kafka.
    pub async fn connect(args: &Args) -> anyhow::Result<Self> {
        let config = DbConfig { max_connections: 4, acquire_timeout: Duration::from_secs(10), ..DbConfig::default() };
        let schema = format!("{}{}", args.schema_prefix, Service::Order);
        let order = crate::prepare::with_schema(&args.database_url, &schema);
        let db = Database::connect(&order, config)
            .await
            .context("the database cannot be reached: check --database-url and --schema-prefix")?;
        let redis = RedisConfig { url: args.redis_url.clone(), key_prefix: args.redis_key_prefix.clone() };
        let redis = Redis::connect(redis).await.context("Redis cannot be reached: check --redis-url")?;
        let kafka = Groups::connect(&args.kafka_brokers, &args.kafka_topic_prefix).await?;
        Ok(Self { db, redis, kafka, schema_prefix: args.schema_prefix.clone() })
    }

    /// Returns `sql` with `{order}` and the like replaced by the schemas' names.
    fn query(&self, sql: &str) -> AssertSqlSafe<String> {
        let mut sql = sql.to_owned();
        for service in Service::ALL {
            sql = sql.replace(&format!("{{{service}}}"), &format!("`{}{service}`", self.schema_prefix));
        }
        AssertSqlSafe(sql)
    }

    /// Runs `sql`, which yields rows of (kind, BINARY(16) id, detail), and notes each row. There may be any number of
    /// them, so they are read one by one.
    pub async fn find(&self, sql: &str, found: &mut Named) -> anyhow::Result<()> {
        let sql = format!("SELECT kind, id, COALESCE(CONVERT(detail USING utf8mb4), '') FROM ({sql}) AS found");
        let mut connection = self.db.acquire().await?;
        let mut rows = sqlx::query(self.query(&sql)).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await.with_context(|| sql.clone())? {
            let (kind, id, detail): (String, Vec<u8>, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let id = readable(&kind, &id);
            found.push(if detail.is_empty() { id } else { format!("{id} ({detail})") });
        }
        Ok(())
    }

    /// Returns the one number that `sql` yields.
    pub async fn count(&self, sql: &str) -> anyhow::Result<i64> {
        let sql = format!("SELECT CAST(({sql}) AS SIGNED)");
        let mut connection = self.db.acquire().await?;
        let count: Option<i64> =
            sqlx::query_scalar(self.query(&sql)).fetch_one(&mut *connection).await.with_context(|| sql.clone())?;
        Ok(count.unwrap_or(0))
    }

    /// Returns the rows that `sql` yields.
    pub async fn rows(&self, sql: &str) -> anyhow::Result<Vec<MySqlRow>> {
        let mut connection = self.db.acquire().await?;
        sqlx::query(self.query(sql)).fetch_all(&mut *connection).await.with_context(|| sql.to_owned())
    }

    /// Returns the rows that `sql` yields with `value` in the place of its `?`.
    pub async fn rows_with<T>(&self, sql: &str, value: T) -> anyhow::Result<Vec<MySqlRow>>
    where
        T: for<'v> Encode<'v, MySql> + Type<MySql>,
    {
        let query = sqlx::query::<MySql>(self.query(sql)).bind(value);
        let mut connection = self.db.acquire().await?;
        query.fetch_all(&mut *connection).await.with_context(|| sql.to_owned())
    }
}

/// Returns the text form of an id, by the prefix of its kind; hex for anything that is not an id.
fn readable(kind: &str, bytes: &[u8]) -> String {
    let text = match kind {
        EventId::PREFIX => EventId::try_from_bytes(bytes).map(|id| id.to_string()),
        ItemId::PREFIX => ItemId::try_from_bytes(bytes).map(|id| id.to_string()),
        CampaignId::PREFIX => CampaignId::try_from_bytes(bytes).map(|id| id.to_string()),
        CouponId::PREFIX => CouponId::try_from_bytes(bytes).map(|id| id.to_string()),
        PaymentId::PREFIX => PaymentId::try_from_bytes(bytes).map(|id| id.to_string()),
        _ => OrderId::try_from_bytes(bytes).map(|id| id.to_string()),
    };
    text.unwrap_or_else(|_| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
