//! Counters of a mesh's load on its servers: rows, entries of indexes, messages, transactions and statements.
//!
//! Rows are counted by triggers, which note each row that a committed transaction has written. The servers' own
//! counters are of no use here: those of a table want the performance schema, which the servers of tests run without,
//! and those of the server have the rows of all tests that run beside this one. So have its counters of statements:
//! these are counted on their way there.

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use stampede_testkit::{Proxy, Service};
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Table of the counters in each schema.
const NOTES: &str = "noted_rows";
/// Tables that change with time, independent of the load.
const BY_TIME: [&str; 4] = ["outbox_leases", "outbox_relays", "provider_turns", "walks"];
/// The metric of transactions that each process has.
const TRANSACTIONS: &str = "stampede_transaction_duration_seconds_count{";

/// A statement that writes a row. The names are those of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Insert,
    Update,
    Delete,
}

impl Change {
    const ALL: [Self; 3] = [Self::Insert, Self::Update, Self::Delete];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// Counts by name.
pub type Tally = BTreeMap<String, i64>;

/// Counts up to some time, or between two.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// Rows, by table with its schema and by statement, such as `order.orders INSERT`.
    pub rows: Tally,
    /// Entries of secondary indexes that inserted rows have, by table. Those that updates moved are not counted.
    pub index_entries: Tally,
    /// Messages, by the topic without its prefix.
    pub messages: Tally,
    /// Transactions that are units of work, by name. A statement that is its own transaction is none of them.
    pub transactions: Tally,
    /// Statements of transactions that have written something, by service.
    pub statements: Tally,
}

impl Costs {
    /// Returns the difference to `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            rows: difference(&self.rows, &before.rows),
            index_entries: difference(&self.index_entries, &before.index_entries),
            messages: difference(&self.messages, &before.messages),
            transactions: difference(&self.transactions, &before.transactions),
            statements: difference(&self.statements, &before.statements),
        }
    }

    /// The same for each of so many orders, as a table in Markdown.
    pub fn per_order(&self, orders: i64) -> String {
        let parts = [
            ("rows", &self.rows),
            ("index entries", &self.index_entries),
            ("messages", &self.messages),
            ("transactions", &self.transactions),
            ("statements", &self.statements),
        ];
        let mut lines = vec!["| an order costs | of | count |".to_owned(), "|---|---|---|".to_owned()];
        for (what, tally) in parts {
            lines.extend(tally.iter().map(|(name, count)| format!("| {what} | {name} | {} |", Share(*count, orders))));
            let all: i64 = tally.values().sum();
            lines.push(format!("| **{what}** | **all** | **{}** |", Share(all, orders)));
        }
        lines.join("\n")
    }
}

/// A count divided by another, with two digits.
struct Share(i64, i64);

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (100 * self.0 + self.1 / 2) / self.1;
        write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

fn difference(after: &Tally, before: &Tally) -> Tally {
    let grown = |(name, count): (&String, &i64)| {
        let more = count - before.get(name).copied().unwrap_or(0);
        (more != 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(grown).collect()
}

/// The servers of a mesh.
pub struct Counters {
    /// The database server, without a schema, with the right to make triggers.
    pub database_url: String,
    pub schema_prefix: String,
    pub brokers: String,
    pub topic_prefix: String,
    /// The services, whose topics are counted.
    pub services: Vec<&'static str>,
    /// Admin URLs of the processes whose transactions are counted.
    pub admin_urls: Vec<String>,
    /// The proxy between each service and its schema.
    pub links: BTreeMap<Service, Proxy>,
}

impl Counters {
    /// Begins to count rows. Must be called once for a database.
    pub async fn install(&self) {
        let mut server = self.connect().await;
        for schema in self.schemas(&mut server).await {
            let notes = format!(
                "CREATE TABLE {schema}.{NOTES} (row_of VARCHAR(64) CHARACTER SET ascii NOT NULL, \
                 what_done CHAR(6) CHARACTER SET ascii NOT NULL) ENGINE = InnoDB"
            );
            run(&mut server, notes).await;
        }
        for (schema, table) in self.tables(&mut server).await {
            for change in Change::ALL.map(Change::name) {
                let trigger = format!(
                    "CREATE TRIGGER {schema}.note_{table}_{change} AFTER {change} ON {schema}.{table} FOR EACH ROW \
                     INSERT INTO {schema}.{NOTES} (row_of, what_done) VALUES ('{table}', '{change}')"
                );
                run(&mut server, trigger).await;
            }
        }
    }

    /// Returns the counts so far.
    pub async fn read(&self) -> Costs {
        let mut server = self.connect().await;
        let mut costs = Costs { messages: self.messages(), statements: self.statements(), ..Costs::default() };
        for schema in self.schemas(&mut server).await {
            let sql = format!(
                "SELECT CAST(row_of AS CHAR), CAST(what_done AS CHAR), COUNT(*) FROM {schema}.{NOTES} \
                 GROUP BY row_of, what_done"
            );
            let noted: Vec<(String, String, i64)> =
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut server).await.unwrap();
            let short = self.without_prefix(&schema);
            costs.rows.extend(noted.into_iter().map(|(of, done, rows)| (format!("{short}.{of} {done}"), rows)));
        }
        let inserted = Change::Insert.name();
        for (table, indexes) in self.secondary_indexes(&mut server).await {
            let rows = costs.rows.get(&format!("{table} {inserted}")).copied().unwrap_or(0);
            costs.index_entries.insert(table, rows * indexes);
        }
        for url in &self.admin_urls {
            for (name, count) in transactions(&page(url, "/metrics").await) {
                *costs.transactions.entry(name).or_default() += count;
            }
        }
        costs
    }

    fn statements(&self) -> Tally {
        let sent = |(service, link): (&Service, &Proxy)| {
            (service.name().to_owned(), i64::try_from(link.statements()).unwrap())
        };
        self.links.iter().map(sent).collect()
    }

    async fn connect(&self) -> MySqlConnection {
        MySqlConnection::connect(&format!("{}?ssl-mode=disabled", self.database_url)).await.unwrap()
    }

    fn without_prefix<'n>(&self, schema: &'n str) -> &'n str {
        schema.strip_prefix(&self.schema_prefix).unwrap_or(schema)
    }

    async fn schemas(&self, server: &mut MySqlConnection) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT CAST(schema_name AS CHAR) FROM information_schema.schemata \
             WHERE LEFT(schema_name, CHAR_LENGTH(?)) = ? ORDER BY 1",
        )
        .bind(&self.schema_prefix)
        .bind(&self.schema_prefix)
        .fetch_all(server)
        .await
        .unwrap()
    }

    /// The tables whose rows are counted, each behind its schema.
    async fn tables(&self, server: &mut MySqlConnection) -> Vec<(String, String)> {
        let mut tables: Vec<(String, String)> = sqlx::query_as(
            "SELECT CAST(table_schema AS CHAR), CAST(table_name AS CHAR) FROM information_schema.tables \
             WHERE LEFT(table_schema, CHAR_LENGTH(?)) = ? AND table_type = 'BASE TABLE' ORDER BY 1, 2",
        )
        .bind(&self.schema_prefix)
        .bind(&self.schema_prefix)
        .fetch_all(server)
        .await
        .unwrap();
        // The name of sqlx' table of migrations begins with an underscore.
        tables.retain(|(_, table)| !table.starts_with('_') && table != NOTES && !BY_TIME.contains(&table.as_str()));
        tables
    }

    /// Returns the number of secondary indexes by table, without tables that have none.
    async fn secondary_indexes(&self, server: &mut MySqlConnection) -> Vec<(String, i64)> {
        let indexes: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT CAST(table_schema AS CHAR), CAST(table_name AS CHAR), COUNT(DISTINCT index_name) \
             FROM information_schema.statistics WHERE LEFT(table_schema, CHAR_LENGTH(?)) = ? \
             AND index_name <> 'PRIMARY' GROUP BY table_schema, table_name",
        )
        .bind(&self.schema_prefix)
        .bind(&self.schema_prefix)
        .fetch_all(server)
        .await
        .unwrap();
        let named = |(schema, table, count): (String, String, i64)| {
            (format!("{}.{table}", self.without_prefix(&schema)), count)
        };
        indexes.into_iter().map(named).collect()
    }

    /// Returns the end offsets of the topics. Blocks.
    fn messages(&self) -> Tally {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).set("group.id", "costs").create().unwrap();
        let timeout = Duration::from_secs(20);
        let messages_of = |service: &&'static str| {
            let topic = format!("{}.{service}", self.topic_prefix);
            let metadata = client.fetch_metadata(Some(topic.as_str()), timeout).unwrap();
            let partitions = metadata.topics()[0].partitions();
            let end = |partition: i32| client.fetch_watermarks(&topic, partition, timeout).unwrap().1;
            ((*service).to_owned(), partitions.iter().map(|partition| end(partition.id())).sum::<i64>())
        };
        self.services.iter().map(messages_of).collect()
    }
}

async fn run(server: &mut MySqlConnection, sql: String) {
    // As text: a trigger cannot be made by a prepared statement.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(server).await.unwrap();
}

async fn page(url: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    // HTTP/1.0, so that the page is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// The transactions on a page of metrics, those that failed too.
fn transactions(page: &str) -> Vec<(String, i64)> {
    let count = |line: &str| {
        let (labels, count) = line.strip_prefix(TRANSACTIONS)?.rsplit_once(' ')?;
        let (name, _) = labels.split_once("transaction=\"")?.1.split_once('"')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    page.lines().filter_map(count).collect()
}
