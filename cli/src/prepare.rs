//! `stampede prepare`: creates the schemas and topics of a mesh before it starts, and brings them to this release. Safe
//! to repeat.

mod floors;

use crate::output::{Output, print_json, print_text};
use anyhow::{Context, anyhow, bail};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use stampede_db::{Database, DbConfig, Schema};
use stampede_vocab::Service;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait for the database or Kafka.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Retention of topics, which is for good: copies of dead letters are read weeks later.
const KEEP: (&str, &str) = ("retention.ms", "-1");
/// Pause before the next try to reach the database, or to see a new topic.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Make the schemas, bring them to this release, and make the topics.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  stampede prepare --database-url mysql://root:secret@127.0.0.1:3306 --kafka-brokers 127.0.0.1:9092"
)]
pub struct Args {
    /// The database server, without a schema, with the right to make some: mysql://user:password@host:port
    #[arg(long, env = "STAMPEDE_ADMIN_DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// Prefix of schema names
    #[arg(long, env = "STAMPEDE_SCHEMA_PREFIX", default_value = "stampede_")]
    schema_prefix: String,

    /// Kafka's addresses, comma separated
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    kafka_brokers: String,

    /// Prefix of topic names
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    kafka_topic_prefix: String,

    /// Partitions of each topic: the most replicas of one service that can share the work
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,

    /// Copies of each partition; three in a cluster that must not lose a message with a machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    replication: i32,
}

#[derive(Serialize)]
struct Prepared {
    schemas: Vec<PreparedSchema>,
    topics: Vec<String>,
}

#[derive(Serialize)]
struct PreparedSchema {
    name: String,
    version: i64,
}

/// Prepares, and prints the schemas and topics that there are now.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let schemas = make_schemas(&args).await?;
    let topics = make_topics(&args).await?;
    if output.json {
        return print_json(&Prepared { schemas, topics });
    }
    for schema in &schemas {
        print_text(format_args!("schema {} is at version {}", schema.name, schema.version))?;
    }
    print_text(format_args!("topics {}", topics.join(" ")))
}

async fn make_schemas(args: &Args) -> anyhow::Result<Vec<PreparedSchema>> {
    let base = args.database_url.trim_end_matches('/');
    let separator = if base.contains('?') { '&' } else { '?' };
    let url = format!("{base}{separator}ssl-mode=preferred");
    let mut server = reach(&url).await.context("the database server cannot be reached: check --database-url")?;
    let mut made = Vec::new();
    for schema in Service::ALL.map(Schema::of) {
        let name = format!("{}{}", args.schema_prefix, schema.service);
        check_name(&name)?;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS `{name}`"))).execute(&mut server).await?;
        let config = DbConfig { max_connections: 2, acquire_timeout: CONNECT_TIMEOUT, ..DbConfig::default() };
        let db = Database::connect(&with_schema(base, &name), config).await?;
        schema.migrate(&db).await?;
        floors::raise(&with_schema(&url, &name)).await.with_context(|| format!("the floors of {name}"))?;
        made.push(PreparedSchema { name, version: schema.version() });
    }
    Ok(made)
}

/// Connects to a server that may still be starting. Fails with its last error.
async fn reach(url: &str) -> Result<MySqlConnection, sqlx::Error> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match MySqlConnection::connect(url).await {
            // A refusal is final.
            Err(sqlx::Error::Io(error)) if Instant::now() < deadline => {
                tracing::info!(error.cause = %error, "waiting for the database server");
                sleep(RETRY_AFTER.mul_f64(rand::random_range(0.5..1.0))).await;
            }
            outcome => return outcome,
        }
    }
}

/// Refuses a name that is not plain: a schema's name goes into a statement as it is.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !plain {
        bail!("--schema-prefix may have letters, digits and underscores only, but {name:?} would be a schema");
    }
    Ok(())
}

/// Returns the URL of one schema on the server at `base`, whose query is kept.
pub fn with_schema(base: &str, schema: &str) -> String {
    match base.split_once('?') {
        Some((server, query)) => format!("{}/{schema}?{query}", server.trim_end_matches('/')),
        None => format!("{}/{schema}", base.trim_end_matches('/')),
    }
}

async fn make_topics(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for writer in Service::ALL {
        names.push(writer.topic(&args.kafka_topic_prefix));
        names.extend(writer.readers().map(|reader| writer.dead_letters(&args.kafka_topic_prefix, reader)));
    }
    let topics: Vec<_> = names.iter().map(|name| new_topic(args, name)).collect();
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &args.kafka_brokers).create()?;
    let options = AdminOptions::new().operation_timeout(Some(CONNECT_TIMEOUT)).request_timeout(Some(CONNECT_TIMEOUT));
    let results =
        client.create_topics(&topics, &options).await.context("Kafka cannot be reached: check --kafka-brokers")?;
    let mut older = Vec::new();
    for result in results {
        match result {
            Ok(_) => {}
            Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => older.push(topic),
            Err((topic, code)) => bail!("topic {topic} cannot be made: {code}"),
        }
    }
    keep_dead_letters(&client, &older).await?;
    Ok(names)
}

fn new_topic<'n>(args: &Args, name: &'n str) -> NewTopic<'n> {
    let topic = NewTopic::new(name, args.partitions, TopicReplication::Fixed(args.replication));
    if has_dead_letters(name) { topic.set(KEEP.0, KEEP.1) } else { topic }
}

fn has_dead_letters(topic: &str) -> bool {
    topic.ends_with(".dlq")
}

/// Sets unlimited retention on dead-letter topics of an earlier release. Kafka replaces all settings of a topic at
/// once, so its other settings are repeated.
async fn keep_dead_letters(client: &AdminClient<DefaultClientContext>, topics: &[String]) -> anyhow::Result<()> {
    let topics = topics.iter().filter(|topic| has_dead_letters(topic));
    let resources: Vec<_> = topics.map(|topic| ResourceSpecifier::Topic(topic)).collect();
    if resources.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(CONNECT_TIMEOUT));
    let described = settings_of(client, &resources, &options).await?;
    let mut altered = Vec::new();
    for described in &described {
        let OwnedResourceSpecifier::Topic(topic) = &described.specifier else { continue };
        if described.get(KEEP.0).is_some_and(|entry| entry.value.as_deref() == Some(KEEP.1)) {
            continue;
        }
        let own = described.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        let own = own.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
        altered.push(
            own.chain([KEEP])
                .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |all, (key, value)| all.set(key, value)),
        );
    }
    if altered.is_empty() {
        return Ok(());
    }
    for result in client.alter_configs(&altered, &options).await.context("Kafka does not take settings")? {
        result.map_err(|(topic, code)| anyhow!("{topic:?} cannot keep its records: {code}"))?;
    }
    Ok(())
}

/// Returns the settings of topics. A topic that was made a moment ago is not known to every broker at once.
async fn settings_of(
    client: &AdminClient<DefaultClientContext>,
    topics: &[ResourceSpecifier<'_>],
    options: &AdminOptions,
) -> anyhow::Result<Vec<ConfigResource>> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let described = client.describe_configs(topics, options).await.context("Kafka does not show its settings")?;
        match described.into_iter().collect::<Result<Vec<_>, _>>() {
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) if Instant::now() < deadline => {
                sleep(RETRY_AFTER.mul_f64(rand::random_range(0.5..1.0))).await;
            }
            described => return described.map_err(|code| anyhow!("topics: {code}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_url_stays_behind_the_schema() {
        assert_eq!(with_schema("mysql://u:p@h:1", "s"), "mysql://u:p@h:1/s");
        assert_eq!(with_schema("mysql://u:p@h:1/", "s"), "mysql://u:p@h:1/s");
        assert_eq!(with_schema("mysql://u:p@h:1?ssl-mode=required", "s"), "mysql://u:p@h:1/s?ssl-mode=required");
    }

    #[test]
    fn only_plain_names_become_schemas() {
        assert!(check_name("stampede_order").is_ok());
        assert!(check_name("a`; DROP").is_err());
    }
}
