//! Which schemas a program runs on, by what is written down in a real database, and what all schemas have in common.

use sqlx::AssertSqlSafe;
use stampede_db::{Database, DbError, Schema};
use stampede_testkit::{Service, World};
use std::collections::BTreeSet;

/// What the server knows of the tables with such a name, a line each: how they are stored, their columns, their indexes
/// and their constraints.
const FACTS: [&str; 4] = [
    "SELECT CONCAT_WS(' ', CAST(table_name AS CHAR), CAST(engine AS CHAR), CAST(table_collation AS CHAR)) \
     FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE ?",
    "SELECT CONCAT_WS(' ', CAST(table_name AS CHAR), CAST(ordinal_position AS CHAR), CAST(column_name AS CHAR), \
     CAST(column_type AS CHAR), CAST(is_nullable AS CHAR), COALESCE(CAST(column_default AS CHAR), 'no default'), \
     CAST(collation_name AS CHAR), CAST(extra AS CHAR)) \
     FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE ?",
    "SELECT CONCAT_WS(' ', CAST(table_name AS CHAR), CAST(index_name AS CHAR), CAST(non_unique AS CHAR), \
     CAST(seq_in_index AS CHAR), CAST(column_name AS CHAR), CAST(sub_part AS CHAR)) \
     FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name LIKE ?",
    "SELECT CONCAT_WS(' ', CAST(t.table_name AS CHAR), CAST(t.constraint_type AS CHAR), \
     CAST(t.constraint_name AS CHAR), CAST(c.check_clause AS CHAR)) \
     FROM information_schema.table_constraints t LEFT JOIN information_schema.check_constraints c \
     ON c.constraint_schema = t.constraint_schema AND c.constraint_name = t.constraint_name \
     WHERE t.table_schema = DATABASE() AND t.table_name LIKE ?",
];

async fn facts(db: &Database, tables: &str) -> Result<BTreeSet<String>, DbError> {
    let mut conn = db.acquire().await?;
    let mut facts = BTreeSet::new();
    for sql in FACTS {
        let found: Vec<String> = sqlx::query_scalar(sql).bind(tables).fetch_all(&mut *conn).await?;
        facts.extend(found);
    }
    Ok(facts)
}

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_by_name() {
    let world = World::new().unwrap();
    let db = world.migrated_schema(Service::Event).await.unwrap();
    db.check_schema(Schema::of(Service::Event)).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1").execute(&mut *conn).await.unwrap();
    drop(conn);
    let refused = db.check_schema(Schema::of(Service::Event)).await.unwrap_err().to_string();
    assert!(refused.contains("the event schema is at version") && refused.contains("stampede prepare"), "{refused}");
}

#[tokio::test]
async fn a_schema_awaits_migrations_before_the_first_and_while_somebody_applies_them() {
    let db = World::new().unwrap().schema(Service::Event).await.unwrap();
    assert!(!db.awaits_migrations().await.unwrap(), "it has all of them");
    let mut other = db.open_apart().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1").execute(&mut other).await.unwrap();
    assert!(!db.awaits_migrations().await.unwrap(), "one is missing, and nobody applies it");

    let lock = "CONCAT('migrate.', MD5(DATABASE()))";
    sqlx::query(AssertSqlSafe(format!("DO GET_LOCK({lock}, 10)"))).execute(&mut other).await.unwrap();
    assert!(db.awaits_migrations().await.unwrap(), "somebody applies it");
    sqlx::query(AssertSqlSafe(format!("DO RELEASE_LOCK({lock})"))).execute(&mut other).await.unwrap();
    assert!(!db.awaits_migrations().await.unwrap(), "who applied it is gone");
    sqlx::query("DELETE FROM _sqlx_migrations").execute(&mut other).await.unwrap();
    assert!(db.awaits_migrations().await.unwrap(), "it has none");
}

#[tokio::test]
async fn a_newer_schema_is_refused_only_if_something_was_taken_away() {
    let db = World::new().unwrap().migrated_schema(Service::Event).await.unwrap();
    let newer = |ahead: i64, description: &'static str| {
        let db = &db;
        async move {
            let mut conn = db.acquire().await.unwrap();
            let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                          VALUES (?, ?, TRUE, '', 0)";
            let version = Schema::of(Service::Event).version() + ahead;
            sqlx::query(insert).bind(version).bind(description).execute(&mut *conn).await.unwrap();
        }
    };
    newer(1, "add events note").await;
    newer(2, "contracting parties").await;
    db.check_schema(Schema::of(Service::Event)).await.unwrap();
    newer(3, "contract events name").await;
    let refused = db.check_schema(Schema::of(Service::Event)).await.unwrap_err().to_string();
    assert!(refused.contains("took away") && refused.contains("run a newer release"), "{refused}");
}

/// Each schema has migrations of its own, and the kits one set of statements for all.
#[tokio::test]
async fn outboxes_are_alike_in_every_schema_and_so_are_inboxes_and_dead_letters() {
    let world = World::new().unwrap();
    let (mut all, mut readers) = (Vec::new(), Vec::new());
    for service in Service::ALL {
        let db = world.schema(service).await.unwrap();
        if service.reads().next().is_some() {
            readers.push((service, db.clone()));
        }
        all.push((service, db));
    }
    for (tables, schemas) in
        [("outbox%", &all), ("inbox%", &readers), ("dead\\_letters%", &readers), ("letter\\_decisions%", &readers)]
    {
        let mut first = None;
        for (service, db) in schemas {
            let facts = facts(db, tables).await.unwrap();
            assert!(!facts.is_empty(), "{service} has no {tables}");
            let (other, expected) = first.get_or_insert_with(|| (*service, facts.clone()));
            let differing: Vec<&String> = expected.symmetric_difference(&facts).collect();
            assert!(differing.is_empty(), "{tables} of {other} and {service}: {differing:#?}");
        }
    }
}
