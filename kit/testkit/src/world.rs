//! One test's share of the real servers.

use crate::{AdminRedis, eventually, template};
use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use stampede_db::{Database, DbConfig, Schema};
use stampede_vocab::{Service, UserId};
use std::{env, time::Duration};

/// Partitions of each topic that a service reads: enough that order across partitions is not given.
const TOPIC_PARTITIONS: i32 = 4;
/// Partitions of each dead-letter topic: nobody goes by the order of copies, and each partition costs Kafka files.
const DEAD_LETTER_PARTITIONS: i32 = 1;

/// Schemas, keys and topics of one test alone.
#[derive(Debug, Clone)]
pub struct World {
    name: String,
    database_url: String,
    redis_url: String,
    admin_redis_url: String,
    event_redis_url: String,
    brokers: String,
}

/// A pool on a schema, as tests use it.
pub async fn connect(url: &str) -> Result<Database> {
    let config = DbConfig {
        max_connections: 4,
        acquire_timeout: Duration::from_secs(10),
        // A test may keep rows locked for as long as it observes.
        idle_timeout: Duration::from_secs(600),
        ..DbConfig::default()
    };
    Ok(Database::connect(url, config).await?)
}

fn has_leaders(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: i32) -> bool {
    leaders(admin, topic) == usize::try_from(partitions).ok()
}

/// Returns how many partitions of a topic have a leader, none if there is no such topic; `None` if Kafka does not
/// answer.
fn leaders(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Option<usize> {
    let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
    let partitions = metadata.topics().first()?.partitions();
    Some(partitions.iter().filter(|partition| partition.leader() >= 0).count())
}

/// Reads a variable that `cargo xtask test` sets.
pub fn from_environment(name: &str) -> Result<String> {
    env::var(name).with_context(|| {
        format!("{name} is not set: run the tests with `cargo xtask test [NAME]`, which starts the servers")
    })
}

impl World {
    /// An empty world: schemas, keys and topics are made when they are asked for.
    pub fn new() -> Result<Self> {
        let unique = UserId::random().to_string();
        Ok(Self {
            name: format!("t{}", &unique["usr_".len()..]),
            database_url: from_environment("STAMPEDE_TEST_DATABASE_URL")?,
            redis_url: from_environment("STAMPEDE_TEST_REDIS_URL")?,
            admin_redis_url: from_environment("STAMPEDE_TEST_ADMIN_REDIS_URL")?,
            event_redis_url: from_environment("STAMPEDE_TEST_EVENT_REDIS_URL")?,
            brokers: from_environment("STAMPEDE_TEST_KAFKA_BROKERS")?,
        })
    }

    /// A world with all schemas and all topics made.
    pub async fn prepared() -> Result<Self> {
        Self::prepared_for(&Service::ALL).await
    }

    /// The same with the schemas of these services alone: each is a dozen tables to be made.
    pub async fn prepared_for(services: &[Service]) -> Result<Self> {
        let world = Self::new()?;
        // Side by side: the server flushes its log and a file for each table, and waits for them.
        try_join_all(services.iter().map(|service| Box::pin(world.make_schema(*service)))).await?;
        world.create_topics().await?;
        Ok(world)
    }

    /// Makes the schema of one service unless it is there, and connects to it. It is a copy of one that was migrated:
    /// tests of migrations need [`World::migrated_schema`].
    pub async fn schema(&self, service: Service) -> Result<Database> {
        self.make_schema(service).await?;
        self.database(service).await
    }

    /// Makes the schema of one service by its migrations, or goes on with them, and connects to it.
    pub async fn migrated_schema(&self, service: Service) -> Result<Database> {
        let name = self.schema_name(service);
        let mut server = MySqlConnection::connect(&format!("{}?ssl-mode=disabled", self.database_url)).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS {name}"))).execute(&mut server).await?;
        server.close().await?;
        let db = self.database(service).await?;
        Schema::of(service).migrate(&db).await?;
        Ok(db)
    }

    /// A connection to a schema that was made before.
    pub async fn database(&self, service: Service) -> Result<Database> {
        connect(&self.service_database_url(service)).await
    }

    /// Makes every topic and every dead-letter topic.
    pub async fn create_topics(&self) -> Result<()> {
        let mut unknown = self.topics();
        let topics: Vec<_> = unknown
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let admin = self.admin()?;
        for result in admin.create_topics(&topics, &options).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        drop(topics);
        // A topic that was just made is unknown to readers until its partitions have a leader. Each is asked for by its
        // name, and once it is known not again: to ask for all at once is to be told of those of every test.
        eventually("every topic has its partitions", || {
            while unknown.pop_if(|(name, partitions)| has_leaders(&admin, name, *partitions)).is_some() {}
            let all_known = unknown.is_empty();
            async move { all_known.then_some(()) }
        })
        .await;
        Ok(())
    }

    /// Deletes the topic of a service with all that is in it, and makes it anew. What is written from then on is in the
    /// new one.
    pub async fn remake_topic(&self, service: Service) -> Result<()> {
        let name = service.topic(self.topic_prefix());
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let admin = self.admin()?;
        for result in admin.delete_topics(&[name.as_str()], &options).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        // The controller has deleted it, and the broker may still take and count records of the old one.
        eventually("the old topic is gone", || {
            let known = leaders(&admin, &name);
            async move { (known == Some(0)).then_some(()) }
        })
        .await;
        eventually("the topic is recreated", || async {
            let topic = NewTopic::new(&name, TOPIC_PARTITIONS, TopicReplication::Fixed(1));
            let made = admin.create_topics(&[topic], &options).await.ok()?;
            made.iter().all(|made| made.is_ok()).then_some(())
        })
        .await;
        eventually("the new topic has its partitions", || {
            let known = has_leaders(&admin, &name, TOPIC_PARTITIONS);
            async move { known.then_some(()) }
        })
        .await;
        Ok(())
    }

    /// How many records the topic of a service has had since it was made.
    pub fn records(&self, service: Service) -> Result<i64> {
        let (name, admin) = (service.topic(self.topic_prefix()), self.admin()?);
        let mut records = 0;
        for partition in 0..TOPIC_PARTITIONS {
            let (_, end) = admin.inner().fetch_watermarks(&name, partition, Duration::from_secs(30))?;
            records += end;
        }
        Ok(records)
    }

    /// URL of the database server, with all rights.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// URL of one service's schema.
    pub fn service_database_url(&self, service: Service) -> String {
        format!("{}/{}", self.database_url, self.schema_name(service))
    }

    /// Prefix of the schema names.
    pub fn schema_prefix(&self) -> String {
        format!("{}_", self.name)
    }

    /// URL of Redis, the first logical database of a server or a cluster, of the user that the processes have.
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The same of an administrator, for actions of a test that no process may take.
    pub fn admin_redis_url(&self) -> &str {
        &self.admin_redis_url
    }

    /// A connection of that user.
    pub async fn admin_redis(&self) -> Result<AdminRedis> {
        AdminRedis::connect(&self.admin_redis_url).await
    }

    /// URL of the logical database that event timers are in, of the user that the processes have.
    pub fn event_redis_url(&self) -> &str {
        &self.event_redis_url
    }

    /// Prefix of the key names.
    pub fn redis_key_prefix(&self) -> String {
        format!("{}:", self.name)
    }

    /// Prefix of the topic names.
    pub fn topic_prefix(&self) -> &str {
        &self.name
    }

    /// Kafka's address.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    fn schema_name(&self, service: Service) -> String {
        format!("{}_{service}", self.name)
    }

    async fn make_schema(&self, service: Service) -> Result<()> {
        template::copy(&self.database_url, service, &self.schema_name(service)).await
    }

    /// The name of every topic, and how many partitions it has.
    fn topics(&self) -> Vec<(String, i32)> {
        let prefix = self.topic_prefix();
        let mut topics: Vec<(String, i32)> =
            Service::ALL.map(|service| (service.topic(prefix), TOPIC_PARTITIONS)).into();
        for writer in Service::ALL {
            let letters = writer.readers().map(|reader| writer.dead_letters(prefix, reader));
            topics.extend(letters.map(|name| (name, DEAD_LETTER_PARTITIONS)));
        }
        topics
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?)
    }
}
