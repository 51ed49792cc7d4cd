//! Schemas that are migrated once, and copied for each test.
//!
//! Migrations change the same tables many times, each with a commit of its own, while their result takes one statement
//! a table. So one schema on the server, the template, is migrated, and tests get copies of it. Every process with the
//! same set of migrations shares it, so nothing may write to it. A copy is made from SHOW CREATE of everything in the
//! template. Fails for kinds of objects that it cannot copy.

use crate::world::connect;
use anyhow::{Context, Result, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};
use stampede_db::{DbError, Schema};
use stampede_vocab::Service;
use std::{collections::BTreeMap, sync::LazyLock};
use tokio::sync::OnceCell;

/// Cache of the statements that create each schema.
static RECIPES: LazyLock<BTreeMap<Service, OnceCell<String>>> =
    LazyLock::new(|| Service::ALL.into_iter().map(|service| (service, OnceCell::new())).collect());

/// Waits until no other process creates the template. The lock ends with its connection.
const LOCK: &str = "SELECT CAST(GET_LOCK(?, 120) AS SIGNED)";

const SCHEMAS: &str = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?";

/// Tables, then views.
const RELATIONS: &str = "SELECT CAST(table_name AS CHAR), CAST(table_type AS CHAR) FROM information_schema.tables \
                         WHERE table_schema = DATABASE() ORDER BY 2, 1";

/// Other kinds of objects, which are not copied.
const OTHERS: &str = "SELECT CAST(trigger_name AS CHAR) FROM information_schema.triggers \
                      WHERE trigger_schema = DATABASE() \
                      UNION ALL SELECT CAST(routine_name AS CHAR) FROM information_schema.routines \
                      WHERE routine_schema = DATABASE() \
                      UNION ALL SELECT CAST(event_name AS CHAR) FROM information_schema.events \
                      WHERE event_schema = DATABASE()";

/// Makes the schema `name` on the server at `server_url`, as the migrations of the service make it. Leaves one that is
/// there as it is.
pub async fn copy(server_url: &str, service: Service, name: &str) -> Result<()> {
    let mut server = open(server_url).await?;
    let found: i64 = sqlx::query_scalar(SCHEMAS).bind(name).fetch_one(&mut server).await?;
    if found == 0 {
        // On the heap: it is done once, and would make the future of every caller larger.
        let recipe = RECIPES[&service].get_or_try_init(|| Box::pin(recipe(server_url, service))).await?;
        let copied = run(&mut server, format!("CREATE DATABASE {name}; USE {name}; {recipe}")).await;
        copied.with_context(|| format!("the {service} schema cannot be copied"))?;
    }
    server.close().await?;
    Ok(())
}

/// Makes the template of a service unless it is there, and returns the statements that copy it.
async fn recipe(server_url: &str, service: Service) -> Result<String> {
    let schema = Schema::of(service);
    let template = format!("template_{service}_{:016x}", schema.fingerprint());
    let mut server = open(server_url).await?;
    let locked: Option<i64> = sqlx::query_scalar(LOCK).bind(&template).fetch_one(&mut server).await?;
    ensure!(locked == Some(1), "somebody else has been making {template} for too long");
    make(&mut server, server_url, schema, &template).await?;
    let statements = statements(&mut server, &template).await?;
    server.close().await?;
    Ok(statements)
}

/// Migrates the template unless it is complete. A partly migrated one, of a process that was killed, is dropped first:
/// half a migration cannot be continued.
async fn make(server: &mut MySqlConnection, server_url: &str, schema: &Schema, template: &str) -> Result<()> {
    let url = format!("{server_url}/{template}");
    run(server, format!("CREATE DATABASE IF NOT EXISTS {template}")).await?;
    if is_migrated(&url, schema).await? {
        return Ok(());
    }
    run(server, format!("DROP DATABASE {template}; CREATE DATABASE {template}")).await?;
    let db = connect(&url).await?;
    Ok(schema.migrate(&db).await?)
}

async fn is_migrated(url: &str, schema: &Schema) -> Result<bool> {
    let db = connect(url).await?;
    match db.check_schema(schema).await {
        Ok(()) => Ok(true),
        Err(DbError::Schema(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the statements that copy the template into the schema in use.
async fn statements(server: &mut MySqlConnection, template: &str) -> Result<String> {
    run(server, format!("USE {template}")).await?;
    let others: Vec<String> = sqlx::query_scalar(OTHERS).fetch_all(&mut *server).await?;
    ensure!(others.is_empty(), "kit/testkit/src/template.rs copies no triggers, routines and events: {others:?}");
    let relations: Vec<(String, String)> = sqlx::query_as(RELATIONS).fetch_all(&mut *server).await?;
    let mut statements = vec!["SET SESSION foreign_key_checks = 0".to_owned()];
    for (name, kind) in relations {
        match kind.as_str() {
            "BASE TABLE" => {
                statements.push(without_next_id(&shown(server, "TABLE", &name).await?));
                // The server refuses this for a table with rows and a generated column. There is none so far.
                if has_rows(server, &name).await? {
                    statements.push(format!("INSERT INTO `{name}` SELECT * FROM {template}.`{name}`"));
                }
            }
            // A view names the schema of each table that it reads.
            "VIEW" => statements.push(shown(server, "VIEW", &name).await?.replace(&format!("`{template}`."), "")),
            kind => bail!("kit/testkit/src/template.rs does not know how to copy {name}, a {kind}"),
        }
    }
    Ok(statements.join(";\n"))
}

/// The statement that makes a table or a view, as the server writes it.
async fn shown(server: &mut MySqlConnection, kind: &str, name: &str) -> Result<String> {
    let show = sqlx::raw_sql(AssertSqlSafe(format!("SHOW CREATE {kind} `{name}`")));
    let text: Vec<u8> = show.fetch_one(server).await?.try_get(1)?;
    Ok(String::from_utf8(text)?)
}

async fn has_rows(server: &mut MySqlConnection, table: &str) -> Result<bool> {
    let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM `{table}`"));
    let rows: i64 = sqlx::query_scalar(count).fetch_one(server).await?;
    Ok(rows > 0)
}

/// Removes AUTO_INCREMENT from the statement of a table: it follows from the rows that are copied.
fn without_next_id(create: &str) -> String {
    const NEXT_ID: &str = " AUTO_INCREMENT=";
    // Among the options: a column has the word alone, and its comment stands before them.
    let options = create.rfind("\n) ").unwrap_or(0);
    let Some(at) = create[options..].find(NEXT_ID).map(|at| options + at) else { return create.to_owned() };
    let rest = create[at + NEXT_ID.len()..].trim_start_matches(|digit: char| digit.is_ascii_digit());
    format!("{}{rest}", &create[..at])
}

async fn open(server_url: &str) -> Result<MySqlConnection> {
    Ok(MySqlConnection::connect(&format!("{server_url}?ssl-mode=disabled")).await?)
}

async fn run(server: &mut MySqlConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World;

    #[test]
    fn only_the_option_of_the_next_id_is_left_out() {
        let table =
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'not AUTO_INCREMENT=1'\n) ENGINE=InnoDB";
        let with = |option: &str| format!("{table}{option} DEFAULT CHARSET=utf8mb4");
        assert_eq!(without_next_id(&with(" AUTO_INCREMENT=42")), with(""));
        assert_eq!(without_next_id(&with("")), with(""));
    }

    #[tokio::test]
    async fn a_template_that_was_left_half_made_is_made_anew() {
        let world = World::new().unwrap();
        let (url, schema) = (world.database_url(), Schema::of(Service::Event));
        let template = format!("{}template", world.schema_prefix());
        let mut server = open(url).await.unwrap();
        let half = format!("CREATE DATABASE {template}; CREATE TABLE {template}.outbox (id INT)");
        run(&mut server, half).await.unwrap();
        make(&mut server, url, schema, &template).await.unwrap();
        assert!(is_migrated(&format!("{url}/{template}"), schema).await.unwrap());
        // Nor is it made anew once it is whole.
        run(&mut server, format!("CREATE TABLE {template}.witness (id INT)")).await.unwrap();
        make(&mut server, url, schema, &template).await.unwrap();
        run(&mut server, format!("DROP TABLE {template}.witness")).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_copy_would_not_have_is_refused_by_name() {
        let world = World::new().unwrap();
        let template = format!("{}template", world.schema_prefix());
        let mut server = open(world.database_url()).await.unwrap();
        let made = format!(
            "CREATE DATABASE {template}; CREATE TABLE {template}.t (id INT); \
             CREATE TRIGGER {template}.noted BEFORE INSERT ON {template}.t FOR EACH ROW SET NEW.id = 1"
        );
        run(&mut server, made).await.unwrap();
        let refused = statements(&mut server, &template).await.unwrap_err().to_string();
        assert!(refused.contains("noted"), "{refused}");
    }
}
