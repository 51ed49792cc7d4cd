//! Units of work against the real database: all or nothing, whatever happens to the caller.

#![expect(clippy::unwrap_used, reason = "a test says where it fails by failing there")]

use sqlx::MySqlConnection;
use stampede_db::{Database, DbError, schema};
use stampede_testkit::World;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::Barrier;

async fn ledger() -> Database {
    let db = World::new().unwrap().schema(&schema::EVENT).await.unwrap();
    let mut connection = db.acquire().await.unwrap();
    for sql in
        ["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL CHECK (n >= 0))", "INSERT INTO t VALUES (1, 0), (2, 0)"]
    {
        sqlx::query(sql).execute(&mut *connection).await.unwrap();
    }
    db
}

async fn numbers(db: &Database) -> Vec<i32> {
    let mut connection = db.acquire().await.unwrap();
    sqlx::query_scalar("SELECT n FROM t ORDER BY id").fetch_all(&mut *connection).await.unwrap()
}

async fn add_one(connection: &mut MySqlConnection, id: i32) -> Result<(), DbError> {
    sqlx::query("UPDATE t SET n = n + 1 WHERE id = ?").bind(id).execute(connection).await?;
    Ok(())
}

#[tokio::test]
async fn an_error_takes_everything_back() {
    let db = ledger().await;
    let outcome: Result<(), DbError> = db
        .transact("fail", |connection| {
            Box::pin(async move {
                add_one(connection, 1).await?;
                Err(DbError::inconsistent("on purpose"))
            })
        })
        .await;
    assert!(matches!(outcome, Err(DbError::Inconsistent(_))));
    assert_eq!(numbers(&db).await, [0, 0]);
}

#[tokio::test]
async fn a_deadlock_is_tried_again_until_both_went_through() {
    let db = ledger().await;
    let both_hold_one = Arc::new(Barrier::new(2));
    let tries = Arc::new(AtomicU32::new(0));
    let crossing = |first: i32, second: i32| {
        let (db, barrier, tries) = (db.clone(), both_hold_one.clone(), tries.clone());
        async move {
            db.transact("cross", move |connection| {
                let (barrier, tries) = (barrier.clone(), tries.clone());
                Box::pin(async move {
                    add_one(connection, first).await?;
                    // Only the first try of each waits: that makes the deadlock certain.
                    if tries.fetch_add(1, Ordering::SeqCst) < 2 {
                        barrier.wait().await;
                    }
                    add_one(connection, second).await
                })
            })
            .await
        }
    };
    let (one, two) = tokio::join!(crossing(1, 2), crossing(2, 1));
    one.unwrap();
    two.unwrap();
    assert_eq!(numbers(&db).await, [2, 2]);
    assert!(tries.load(Ordering::SeqCst) > 2, "there was no deadlock to try again after");
}

#[tokio::test]
async fn a_caller_that_goes_away_tears_nothing_and_poisons_no_connection() {
    let db = ledger().await;
    for pause_us in (0..60).map(|step| step * 50) {
        let work = db.transact("abandoned", |connection| {
            Box::pin(async move {
                add_one(connection, 1).await?;
                add_one(connection, 2).await
            })
        });
        let _ = tokio::time::timeout(Duration::from_micros(pause_us), work).await;
    }
    let settled = stampede_testkit::eventually("both rows have the same number twice in a row", || async {
        let before = numbers(&db).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after = numbers(&db).await;
        (before == after).then_some(after)
    })
    .await;
    assert_eq!(settled[0], settled[1], "a unit of work took effect by half");
    let mut connection = db.acquire().await.unwrap();
    sqlx::query("UPDATE t SET n = 1000 WHERE id = 1").execute(&mut *connection).await.unwrap();
    drop(connection);
    assert_eq!(numbers(&db).await[0], 1000, "a write on a pooled connection was swallowed by an open transaction");
}

#[tokio::test]
async fn violations_are_told_apart_on_both_servers() {
    let db = ledger().await;
    let mut connection = db.acquire().await.unwrap();
    let twice: DbError = sqlx::query("INSERT INTO t VALUES (1, 0)").execute(&mut *connection).await.unwrap_err().into();
    assert_eq!(twice.unique_violation(), Some("PRIMARY"));
    assert!(!twice.check_violation());
    let negative: DbError = sqlx::query("UPDATE t SET n = -1").execute(&mut *connection).await.unwrap_err().into();
    assert!(negative.check_violation());
    assert_eq!(negative.unique_violation(), None);
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_by_name() {
    let world = World::new().unwrap();
    let db = world.schema(&schema::EVENT).await.unwrap();
    db.check_schema(&schema::EVENT).await.unwrap();
    let mut connection = db.acquire().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations ORDER BY version DESC LIMIT 1").execute(&mut *connection).await.unwrap();
    drop(connection);
    let refused = db.check_schema(&schema::EVENT).await.unwrap_err().to_string();
    assert!(refused.contains("the event schema is at version") && refused.contains("stampede prepare"), "{refused}");
}
