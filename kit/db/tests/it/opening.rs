//! Statements that go out with the BEGIN, against the real database: part of the transaction, whatever becomes of it.

use sqlx::MySqlConnection;
use stampede_db::{Database, DbConfig, DbError, Place, Statement, Statements};
use stampede_testkit::{Service, World};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::sync::Barrier;

/// A table of two rows, and the only connection of a pool to it.
struct Rows {
    db: Database,
    others: Database,
}

impl Rows {
    async fn new() -> Self {
        let world = World::new().unwrap();
        let others = world.schema(Service::Event).await.unwrap();
        let mut conn = others.acquire().await.unwrap();
        for sql in ["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL)", "INSERT INTO t VALUES (1, 0), (2, 0)"] {
            sqlx::query(sql).execute(&mut *conn).await.unwrap();
        }
        let config = DbConfig { max_connections: 1, ..DbConfig::default() };
        let db = Database::connect(&world.service_database_url(Service::Event), config).await.unwrap();
        Self { db, others }
    }

    /// Which connection the pool has.
    async fn connection(&self) -> i64 {
        let mut conn = self.db.acquire().await.unwrap();
        sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(&mut *conn).await.unwrap()
    }

    /// Fails if the connection of the pool is inside a transaction: it would see the writes of that, and others would
    /// not see its own.
    async fn are_untouched_and_the_connection_is_clean(&self) {
        assert_eq!(numbers(&self.db).await, [0, 0]);
        let mut conn = self.db.acquire().await.unwrap();
        sqlx::query("UPDATE t SET n = 7 WHERE id = 2").execute(&mut *conn).await.unwrap();
        drop(conn);
        assert_eq!(numbers(&self.others).await, [0, 7]);
    }
}

async fn numbers(db: &Database) -> Vec<i32> {
    let mut conn = db.acquire().await.unwrap();
    sqlx::query_scalar("SELECT n FROM t ORDER BY id").fetch_all(&mut *conn).await.unwrap()
}

async fn add_one(conn: &mut MySqlConnection, id: i32) -> Result<(), DbError> {
    sqlx::query("UPDATE t SET n = n + 1 WHERE id = ?").bind(id).execute(conn).await?;
    Ok(())
}

/// Work that must not be run, or whose transaction nobody ends.
async fn panics() -> Result<(), DbError> {
    panic!("on purpose")
}

fn adding_one(id: i32) -> Statement {
    let mut update = Statement::new("UPDATE t SET n = n + 1 WHERE id = ");
    update.push_bind(id);
    update
}

fn adds_one(id: i32) -> Statements {
    let mut opening = Statements::new();
    opening.push_expecting(adding_one(id), "adding one", 1);
    opening
}

#[tokio::test]
async fn the_work_gets_the_answers_and_commits_both() {
    let rows = Rows::new().await;
    let mut opening = adds_one(1);
    let place: Place = opening.push(Statement::new("SELECT n FROM t ORDER BY id FOR UPDATE"));
    let read: Result<Vec<(i32,)>, DbError> = rows
        .db
        .transact_after("open", opening, move |conn, answers| {
            Box::pin(async move {
                add_one(conn, 2).await?;
                answers.rows(Some(place))
            })
        })
        .await;
    assert_eq!(read.unwrap(), [(1,), (0,)]);
    assert_eq!(numbers(&rows.others).await, [1, 1]);
}

/// Two of them are more than one text takes.
fn long_select() -> Statement {
    let mut select = Statement::new("SELECT n FROM t WHERE id = 1 AND ");
    select.push_bind("a".repeat(3 << 20)).push(" <> ''");
    select
}

#[tokio::test]
async fn an_opening_of_several_texts_is_one_transaction_and_has_every_answer() {
    let rows = Rows::new().await;
    let mut opening = adds_one(1);
    let (first, second) = (opening.push(long_select()), opening.push(long_select()));
    opening.push_expecting(adding_one(2), "adding one", 1);
    let read: Result<[Vec<(i32,)>; 2], DbError> = rows
        .db
        .transact_after("open", opening, move |_, answers| {
            Box::pin(async move { Ok([answers.rows(Some(first))?, answers.rows(Some(second))?]) })
        })
        .await;
    assert_eq!(read.unwrap(), [vec![(1,)], vec![(1,)]]);
    assert_eq!(numbers(&rows.others).await, [1, 1]);
}

#[tokio::test]
async fn an_opening_that_fails_in_a_later_text_leaves_nothing() {
    let rows = Rows::new().await;
    let mut opening = adds_one(1);
    opening.push(long_select());
    opening.push(long_select());
    opening.push(Statement::new("INSERT INTO t VALUES (2, 0)"));
    let outcome: Result<(), DbError> = rows.db.transact_after("fail", opening, |_, _| Box::pin(panics())).await;
    assert_eq!(outcome.unwrap_err().unique_violation(), Some("PRIMARY"));
    rows.are_untouched_and_the_connection_is_clean().await;
}

#[tokio::test]
async fn an_opening_that_fails_half_way_leaves_nothing_and_keeps_the_connection() {
    let rows = Rows::new().await;
    let before = rows.connection().await;
    let mut opening = adds_one(1);
    opening.push(Statement::new("INSERT INTO t VALUES (2, 0)"));
    opening.push(adding_one(2));
    let outcome: Result<(), DbError> = rows.db.transact_after("fail", opening, |_, _| Box::pin(panics())).await;
    assert_eq!(outcome.unwrap_err().unique_violation(), Some("PRIMARY"));
    rows.are_untouched_and_the_connection_is_clean().await;
    assert_eq!(rows.connection().await, before, "a refused statement is no reason to connect anew");
}

#[tokio::test]
async fn an_opening_that_changes_other_rows_than_it_has_to_leaves_nothing() {
    let rows = Rows::new().await;
    let mut opening = adds_one(1);
    opening.push_expecting(adding_one(9), "adding one", 1);
    let outcome: Result<(), DbError> = rows.db.transact_after("fail", opening, |_, _| Box::pin(async { Ok(()) })).await;
    assert!(matches!(outcome, Err(DbError::Inconsistent(_))), "{outcome:?}");
    rows.are_untouched_and_the_connection_is_clean().await;
}

#[tokio::test]
async fn work_that_fails_takes_its_opening_back() {
    let rows = Rows::new().await;
    let outcome: Result<(), DbError> = rows
        .db
        .transact_after("fail", adds_one(1), |_, _| Box::pin(async { Err(DbError::inconsistent("on purpose")) }))
        .await;
    assert!(matches!(outcome, Err(DbError::Inconsistent(_))), "{outcome:?}");
    rows.are_untouched_and_the_connection_is_clean().await;
}

#[tokio::test]
async fn a_connection_whose_transaction_has_not_ended_is_not_used_again() {
    let rows = Rows::new().await;
    let before = rows.connection().await;
    let outcome: Result<(), DbError> = rows.db.transact_after("panic", adds_one(1), |_, _| Box::pin(panics())).await;
    assert!(matches!(outcome, Err(DbError::Panicked("panic"))), "{outcome:?}");
    rows.are_untouched_and_the_connection_is_clean().await;
    assert_ne!(rows.connection().await, before);
    stampede_testkit::eventually("the lock of what was given up is gone", || async {
        rows.db.transact("after", |conn| Box::pin(add_one(conn, 1))).await.ok()
    })
    .await;
}

#[tokio::test]
async fn after_a_deadlock_the_opening_is_sent_again() {
    let rows = Rows::new().await;
    let both_hold_one = Arc::new(Barrier::new(2));
    let tries = Arc::new(AtomicU32::new(0));
    let crossing = |first: i32, second: i32| {
        let (db, barrier, tries) = (rows.others.clone(), both_hold_one.clone(), tries.clone());
        async move {
            db.transact_after("cross", adds_one(first), move |conn, _| {
                let (barrier, tries) = (barrier.clone(), tries.clone());
                Box::pin(async move {
                    // Only the first try of each waits: that makes the deadlock certain.
                    if tries.fetch_add(1, Ordering::SeqCst) < 2 {
                        barrier.wait().await;
                    }
                    add_one(conn, second).await
                })
            })
            .await
        }
    };
    let (one, two) = tokio::join!(crossing(1, 2), crossing(2, 1));
    let outcomes: [Result<(), DbError>; 2] = [one, two];
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(numbers(&rows.others).await, [2, 2]);
    assert!(tries.load(Ordering::SeqCst) > 2, "there was no deadlock to try again after");
}
