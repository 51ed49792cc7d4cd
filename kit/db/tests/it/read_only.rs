//! A server that refuses to write, as an old primary does that stays up after a failover.

use sqlx::{AssertSqlSafe, MySqlConnection, raw_sql};
use stampede_db::{Database, DbConfig, DbError};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, World};
use std::{collections::BTreeSet, time::Duration};

/// The option --read-only, a read-only mode, and a read-only transaction.
const CODES: [i32; 3] = [1290, 1836, 1792];

/// A table that refuses each of these numbers by the error of this code, in a world of its own.
async fn refusing() -> World {
    let world = World::new().unwrap();
    let others = world.schema(Service::Event).await.unwrap();
    let refuse = |code: i32| {
        format!(
            "IF NEW.n = {code} THEN \
             SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'read-only'; END IF;"
        )
    };
    let trigger = CODES.map(refuse).concat();
    let mut conn = others.acquire().await.unwrap();
    for sql in [
        "CREATE TABLE t (n INT NOT NULL)".to_owned(),
        format!("CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW BEGIN {trigger} END"),
    ] {
        raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    }
    world
}

/// A pool of two connections, which no keep-alive pings meanwhile.
async fn pool_of_two(world: &World) -> Database {
    let config = DbConfig { max_connections: 2, idle_timeout: Duration::from_secs(600), ..DbConfig::default() };
    Database::connect(&world.service_database_url(Service::Event), config).await.unwrap()
}

async fn insert(conn: &mut MySqlConnection, n: i32) -> Result<(), DbError> {
    sqlx::query("INSERT INTO t VALUES (?)").bind(n).execute(conn).await?;
    Ok(())
}

async fn insert_in_transaction(db: &Database, n: i32) -> Result<(), DbError> {
    db.transact("insert", move |conn| Box::pin(insert(conn, n))).await
}

async fn insert_alone(db: &Database, n: i32) -> Result<(), DbError> {
    db.run("insert", move |mut conn| async move { insert(&mut conn, n).await }).await
}

async fn connection_id(conn: &mut MySqlConnection) -> i64 {
    sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(conn).await.unwrap()
}

/// The ids of both connections of the pool.
async fn both(db: &Database) -> BTreeSet<i64> {
    let (mut one, mut other) = (db.acquire().await.unwrap(), db.acquire().await.unwrap());
    BTreeSet::from([connection_id(&mut one).await, connection_id(&mut other).await])
}

/// Fails unless this refusal is one that passes, after which both connections are replaced, and only once.
async fn replaced(db: &Database, before: &BTreeSet<i64>, refused: Result<(), DbError>) {
    let error = refused.unwrap_err();
    assert!(!error.is_reproducible(), "{error}");
    let text = error.to_string();
    assert_eq!(Problem::from(error).reason(), Reason::Unavailable, "{text}");
    let after = both(db).await;
    assert!(after.is_disjoint(before), "{text}: {before:?}, then {after:?}");
    insert_in_transaction(db, 1).await.unwrap();
    assert_eq!(both(db).await, after, "once");
}

#[tokio::test]
async fn every_connection_is_replaced_that_was_opened_before_the_server_refused_to_write() {
    let world = refusing().await;
    for code in CODES {
        let db = pool_of_two(&world).await;
        let before = both(&db).await;
        let refused = insert_in_transaction(&db, code).await;
        replaced(&db, &before, refused).await;
    }
}

#[tokio::test]
async fn a_write_without_a_transaction_finds_it_out_as_well() {
    let world = refusing().await;
    let db = pool_of_two(&world).await;
    let before = both(&db).await;
    let refused = insert_alone(&db, CODES[0]).await;
    replaced(&db, &before, refused).await;
}
