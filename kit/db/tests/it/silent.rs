//! A connection that says nothing: with a transaction on it the server ends it, and one that is merely unused is kept.

use sqlx::{AssertSqlSafe, MySqlConnection};
use stampede_db::{Database, DbConfig, DbError};
use stampede_testkit::{FreezeAt, Proxy, Service, World, Writes, eventually};
use std::{
    future::ready,
    time::{Duration, Instant},
};

/// Short, so that the tests are.
const SILENCE: Duration = Duration::from_secs(2);
/// Longer than the server waits for somebody who is silent, and than others wait for a lock at a time, on a machine
/// that may stand still meanwhile.
const LONGEST: Duration = Duration::from_secs(25);

/// A table of two rows in a world of its own, and the others who use it.
async fn rows() -> (World, Database) {
    let world = World::new().unwrap();
    let others = world.schema(Service::Event).await.unwrap();
    let mut conn = others.acquire().await.unwrap();
    for sql in ["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL)", "INSERT INTO t VALUES (1, 0), (2, 0)"] {
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
    drop(conn);
    (world, others)
}

/// A pool of one connection that may be silent for so long.
async fn one_connection(url: &str, idle_timeout: Duration) -> Database {
    let config = DbConfig { max_connections: 1, idle_timeout, ..DbConfig::default() };
    Database::connect(url, config).await.unwrap()
}

async fn add_one(conn: &mut MySqlConnection) -> Result<(), DbError> {
    // As text: a proxy that waits for it must not see it twice.
    sqlx::raw_sql("UPDATE t SET n = n + 1 WHERE id = 1").execute(conn).await?;
    Ok(())
}

async fn is_locked(db: &Database) -> bool {
    let mut conn = db.acquire().await.unwrap();
    let read = sqlx::raw_sql("SELECT n FROM t WHERE id = 1 FOR UPDATE NOWAIT").execute(&mut *conn).await;
    read.is_err_and(|error| DbError::from(error).is_locked())
}

async fn number(db: &Database) -> i32 {
    let mut conn = db.acquire().await.unwrap();
    sqlx::query_scalar("SELECT n FROM t WHERE id = 1").fetch_one(&mut *conn).await.unwrap()
}

async fn connection_id(db: &Database) -> Result<i64, DbError> {
    let mut conn = db.acquire().await?;
    Ok(sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(&mut *conn).await?)
}

#[tokio::test]
async fn rows_that_a_silent_process_has_locked_are_free_within_seconds() {
    let (world, others) = rows().await;
    let frozen = one_connection(&world.service_database_url(Service::Event), SILENCE).await;
    let mut silent = frozen.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *silent).await.unwrap();
    add_one(&mut silent).await.unwrap();
    assert!(is_locked(&others).await);
    let started = Instant::now();
    eventually("the row is free", || async { others.transact("wait", |conn| Box::pin(add_one(conn))).await.ok() })
        .await;
    assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    assert!(add_one(&mut silent).await.is_err(), "its transaction is over");
    drop(silent);
    assert_eq!(number(&others).await, 1, "what the silent one wrote is rolled back");
    // What it does next is on a connection that works.
    frozen.transact("again", |conn| Box::pin(add_one(conn))).await.unwrap();
    assert_eq!(number(&others).await, 2);
}

#[tokio::test]
async fn a_link_that_is_cut_in_a_transaction_frees_its_rows_although_nobody_says_so() {
    let (world, others) = rows().await;
    let link = Proxy::to_url(&world.service_database_url(Service::Event)).await.unwrap();
    // The process gives up later than the server does.
    let config =
        DbConfig { max_connections: 1, work_timeout: 2 * LONGEST, idle_timeout: SILENCE, ..DbConfig::default() };
    let cut_off = Database::connect(link.url(), config).await.unwrap();
    link.freeze(Writes::With(b"UPDATE t".to_vec()), FreezeAt::After(1));
    let update = tokio::spawn(async move { cut_off.transact("cut_off", |conn| Box::pin(add_one(conn))).await });
    link.frozen().await;
    assert!(is_locked(&others).await);
    let started = Instant::now();
    eventually("the row is free", || async { others.transact("wait", |conn| Box::pin(add_one(conn))).await.ok() })
        .await;
    assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());
    link.cut();
    assert!(update.await.unwrap().is_err());
    assert_eq!(number(&others).await, 1);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_kept() {
    let (world, _) = rows().await;
    let db = one_connection(&world.service_database_url(Service::Event), 2 * SILENCE).await;
    // A machine that stands still pings nobody: then once more.
    for _ in 0..3 {
        let before = connection_id(&db).await.unwrap();
        tokio::time::sleep(3 * SILENCE).await;
        if connection_id(&db).await.unwrap() == before {
            return;
        }
    }
    panic!("the server has ended it three times");
}

#[tokio::test]
async fn a_dirty_connection_that_nobody_uses_is_validated_and_not_pinged_as_well() {
    let (world, _) = rows().await;
    let link = Proxy::to_url(&world.service_database_url(Service::Event)).await.unwrap();
    // Idle connections are pinged three times in the idle time-out.
    let (max_connections, idle_timeout, acquire_timeout) = (1, 3 * SILENCE, LONGEST);
    let config = DbConfig { max_connections, idle_timeout, acquire_timeout, ..DbConfig::default() };
    let db = Database::connect(link.url(), config).await.unwrap();
    link.freeze(Writes::With(b"ROLLBACK".to_vec()), FreezeAt::After(1));
    drop(db.acquire().await.unwrap());
    link.frozen().await;
    let (writes, thawed) = (link.writes(), Instant::now());
    link.thaw();
    eventually("the next ping", || ready((link.writes() > writes).then_some(()))).await;
    assert!(thawed.elapsed() >= SILENCE / 2, "it came {:?} after the validation", thawed.elapsed());
}

#[tokio::test]
async fn a_connection_that_the_server_has_ended_is_replaced() {
    let (world, others) = rows().await;
    let db = one_connection(&world.service_database_url(Service::Event), SILENCE).await;
    let before = connection_id(&db).await.unwrap();
    let kill = AssertSqlSafe(format!("KILL {before}"));
    sqlx::raw_sql(kill).execute(&mut *others.acquire().await.unwrap()).await.unwrap();
    let now = eventually("there is a connection", || async { connection_id(&db).await.ok() }).await;
    assert_ne!(now, before);
}

#[tokio::test]
async fn a_connection_apart_is_a_new_one_with_the_settings_of_the_pool() {
    let (world, _) = rows().await;
    let db = one_connection(&world.service_database_url(Service::Event), SILENCE).await;
    let settings = "SELECT CAST(CONNECTION_ID() AS SIGNED), CAST(@@wait_timeout AS SIGNED)";
    let of_pool: (i64, i64) = sqlx::query_as(settings).fetch_one(&mut *db.acquire().await.unwrap()).await.unwrap();
    let mut apart = db.open_apart().await.unwrap();
    let of_other: (i64, i64) = sqlx::query_as(settings).fetch_one(&mut apart).await.unwrap();
    assert_ne!(of_other.0, of_pool.0);
    assert_eq!((of_other.1, of_pool.1), (2, 2));
}
