//! Schemas that are copied are what their migrations make.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use stampede_db::Schema;
use stampede_testkit::{Service, World};

/// What information_schema has of a schema: the table, its column with the name of the schema, and what is compared,
/// by columns that both servers have.
const FACTS: [(&str, &str, &[&str]); 12] = [
    ("schemata", "schema_name", &["default_character_set_name", "default_collation_name"]),
    (
        "tables",
        "table_schema",
        &["table_name", "table_type", "engine", "row_format", "table_collation", "create_options", "table_comment"],
    ),
    (
        "columns",
        "table_schema",
        &[
            "table_name",
            "ordinal_position",
            "column_name",
            "column_default",
            "is_nullable",
            "column_type",
            "collation_name",
            "column_key",
            "extra",
            "generation_expression",
            "column_comment",
        ],
    ),
    (
        "statistics",
        "table_schema",
        &[
            "table_name",
            "index_name",
            "seq_in_index",
            "column_name",
            "non_unique",
            "sub_part",
            "index_type",
            "collation",
        ],
    ),
    // By the schema of the table, by which MariaDB finds them; else it opens the tables of all schemas.
    ("table_constraints", "table_schema", &["table_name", "constraint_name", "constraint_type"]),
    ("check_constraints", "constraint_schema", &["constraint_name", "check_clause"]),
    (
        "key_column_usage",
        "table_schema",
        &[
            "table_name",
            "constraint_name",
            "ordinal_position",
            "column_name",
            "referenced_table_name",
            "referenced_column_name",
        ],
    ),
    (
        "referential_constraints",
        "constraint_schema",
        &["table_name", "constraint_name", "referenced_table_name", "update_rule", "delete_rule"],
    ),
    (
        "views",
        "table_schema",
        &["table_name", "view_definition", "check_option", "is_updatable", "definer", "security_type"],
    ),
    ("triggers", "trigger_schema", &["trigger_name"]),
    ("routines", "routine_schema", &["routine_name"]),
    ("events", "event_schema", &["event_name"]),
];

/// The table of the migrations, and what it has of when and how long each was applied.
const MIGRATIONS: (&str, [&str; 2]) = ("_sqlx_migrations", ["installed_on", "execution_time"]);

/// What a schema consists of: a line for each thing, under what kind of thing it is.
async fn described(conn: &mut MySqlConnection) -> Vec<(String, Vec<String>)> {
    let schema: String = sqlx::query_scalar("SELECT CAST(DATABASE() AS CHAR)").fetch_one(&mut *conn).await.unwrap();
    let mut described = Vec::new();
    for (table, named_by, columns) in FACTS {
        let from = format!("information_schema.{table} WHERE {named_by} = DATABASE()");
        let lines = lines(conn, columns.iter().map(|column| format!("`{column}`")), &from).await;
        // A view names the schema of what it reads, and the server puts a join in it in parentheses if its text was
        // made from a view.
        let lines = lines.iter().map(|line| line.replace(&schema, "this").replace(['(', ')'], ""));
        described.push((table.to_owned(), lines.collect()));
    }
    for table in tables(conn).await {
        let show = sqlx::raw_sql(AssertSqlSafe(format!("SHOW CREATE TABLE `{table}`")));
        let create: Vec<u8> = show.fetch_one(&mut *conn).await.unwrap().try_get(1).unwrap();
        // The table's own character set is written beside a column only if its statement had it.
        let create = String::from_utf8(create).unwrap().replace(" CHARACTER SET utf8mb4", "");
        described.push((format!("{table} as it is made"), vec![create]));
        let columns = columns(conn, &table).await.into_iter().map(|column| format!("HEX(`{column}`)"));
        described.push((format!("rows of {table}"), lines(conn, columns, &format!("`{table}`")).await));
    }
    described
}

/// Rows of a table as lines, in the order of their text.
async fn lines(conn: &mut MySqlConnection, columns: impl Iterator<Item = String>, from: &str) -> Vec<String> {
    let texts: Vec<_> = columns.map(|column| format!("CAST(COALESCE({column}, 'NULL') AS CHAR)")).collect();
    let select = format!("SELECT CONCAT_WS(' | ', {}) FROM {from}", texts.join(", "));
    let mut lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(conn).await.unwrap();
    lines.sort();
    lines
}

async fn tables(conn: &mut MySqlConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' ORDER BY 1",
    )
    .fetch_all(conn)
    .await
    .unwrap()
}

/// The columns of a table whose values follow from the migrations.
async fn columns(conn: &mut MySqlConnection, table: &str) -> Vec<String> {
    let mut columns: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(column_name AS CHAR) FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
    )
    .bind(table)
    .fetch_all(conn)
    .await
    .unwrap();
    columns.retain(|column| table != MIGRATIONS.0 || !MIGRATIONS.1.contains(&column.as_str()));
    columns
}

#[tokio::test]
async fn a_copied_schema_is_what_its_migrations_make() {
    let (copied, migrated) = (World::new().unwrap(), World::new().unwrap());
    for service in Service::ALL {
        let copy = copied.schema(service).await.unwrap();
        let original = migrated.migrated_schema(service).await.unwrap();
        let found = described(&mut copy.acquire().await.unwrap()).await;
        let expected = described(&mut original.acquire().await.unwrap()).await;
        assert!(expected.iter().any(|(what, lines)| what == "rows of outbox_leases" && lines.len() == 16));
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{service}");
        }
        assert_eq!(found.len(), expected.len(), "{service} has more or fewer tables");
        // Nothing is left to be applied, and nothing of it is unknown.
        Schema::of(service).migrate(&copy).await.unwrap();
        copy.check_schema(Schema::of(service)).await.unwrap();
        assert_eq!(described(&mut copy.acquire().await.unwrap()).await, found, "{service}");
    }
}

#[tokio::test]
async fn what_is_done_to_a_copy_is_done_to_no_other_and_stays() {
    let (one, other) = (World::new().unwrap(), World::new().unwrap());
    let changed = one.schema(Service::Order).await.unwrap();
    for sql in ["DELETE FROM outbox_leases", "ALTER TABLE orders DROP COLUMN last_decline"] {
        sqlx::query(sql).execute(&mut *changed.acquire().await.unwrap()).await.unwrap();
    }
    let left = described(&mut changed.acquire().await.unwrap()).await;
    let again = one.schema(Service::Order).await.unwrap();
    assert_eq!(described(&mut again.acquire().await.unwrap()).await, left, "a schema that is there stays as it is");
    let untouched = other.schema(Service::Order).await.unwrap();
    let mut conn = untouched.acquire().await.unwrap();
    let leases: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox_leases").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(leases, 16);
    assert!(columns(&mut conn, "orders").await.iter().any(|column| column == "last_decline"));
}
