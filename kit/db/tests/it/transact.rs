//! Units of work against the real database: all or nothing, whatever happens to the caller.

use sqlx::{AssertSqlSafe, MySqlConnection};
use stampede_db::{Database, DbConfig, DbError};
use stampede_status::{Problem, Reason};
use stampede_testkit::{Service, World};
use stampede_vocab::clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Barrier;

async fn ledger() -> Database {
    ledger_in(&World::new().unwrap()).await
}

async fn ledger_in(world: &World) -> Database {
    let db = world.schema(Service::Event).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    for sql in
        ["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL CHECK (n >= 0))", "INSERT INTO t VALUES (1, 0), (2, 0)"]
    {
        sqlx::query(sql).execute(&mut *conn).await.unwrap();
    }
    db
}

/// The only connection to the ledger of this world, given up after `work_timeout`.
async fn impatient(world: &World, work_timeout: Duration) -> Database {
    let config = DbConfig { max_connections: 1, work_timeout, ..DbConfig::default() };
    Database::connect(&world.service_database_url(Service::Event), config).await.unwrap()
}

async fn numbers(db: &Database) -> Vec<i32> {
    let mut conn = db.acquire().await.unwrap();
    sqlx::query_scalar("SELECT n FROM t ORDER BY id").fetch_all(&mut *conn).await.unwrap()
}

async fn add_one(conn: &mut MySqlConnection, id: i32) -> Result<(), DbError> {
    sqlx::query("UPDATE t SET n = n + 1 WHERE id = ?").bind(id).execute(conn).await?;
    Ok(())
}

/// Ends the statements of this schema that sleep.
async fn end_sleep(db: &Database) {
    let mut conn = db.acquire().await.unwrap();
    let sleeping = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                    WHERE db = DATABASE() AND info LIKE 'SELECT SLEEP%'";
    let sleeping: Vec<i64> = sqlx::query_scalar(sleeping).fetch_all(&mut *conn).await.unwrap();
    for id in sleeping {
        // It may have ended by itself.
        let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut *conn).await;
    }
}

/// Adds one to the first row, and gets no answer to what follows. Returns how long it takes to give that up.
async fn given_up_after(db: &Database) -> Duration {
    let started = Instant::now();
    let outcome = db.transact("hang", |conn| {
        Box::pin(async move {
            add_one(conn, 1).await?;
            sqlx::query("SELECT SLEEP(30)").execute(conn).await?;
            Ok(())
        })
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, DbError::TimedOut { name: "hang", .. }) && error.is_unreachable(), "{error}");
    started.elapsed()
}

/// Waits for the lock of the first row, which somebody keeps, until that is given up.
async fn wait_in_vain(db: &Database) -> DbError {
    let started = Instant::now();
    let error = db.transact("wait", |conn| Box::pin(add_one(conn, 1))).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    error
}

/// Three connections of a pool that are idle and clean, and that the server has ended.
async fn ended(world: &World) -> Database {
    let others = ledger_in(world).await;
    // Long enough that no keep-alive finds out before the test does.
    let config = DbConfig { max_connections: 3, idle_timeout: Duration::from_secs(600), ..DbConfig::default() };
    let db = Database::connect(&world.service_database_url(Service::Event), config).await.unwrap();
    let all_taken = Arc::new(Barrier::new(3));
    let (one, two, three) =
        tokio::join!(id_of_one(&db, &all_taken), id_of_one(&db, &all_taken), id_of_one(&db, &all_taken));
    let mut conn = others.acquire().await.unwrap();
    for id in [one, two, three] {
        sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut *conn).await.unwrap();
    }
    let count = "SELECT COUNT(*) FROM information_schema.processlist WHERE id IN (?, ?, ?)";
    loop {
        let left = sqlx::query_scalar(count).bind(one).bind(two).bind(three).fetch_one(&mut *conn);
        let left: i64 = left.await.unwrap();
        if left == 0 {
            return db;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Takes a connection, waits until all are taken, and returns its id.
async fn id_of_one(db: &Database, all_taken: &Arc<Barrier>) -> i64 {
    let all_taken = all_taken.clone();
    let id = db.transact("id", move |conn| {
        let all_taken = all_taken.clone();
        Box::pin(async move {
            all_taken.wait().await;
            let id: i64 = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(conn).await?;
            Ok(id)
        })
    });
    id.await.unwrap()
}

#[tokio::test]
async fn a_connection_that_was_lost_while_it_was_idle_fails_no_transaction() {
    let db = ended(&World::new().unwrap()).await;
    for _ in 0..3 {
        db.transact("add", |conn| Box::pin(add_one(conn, 1))).await.unwrap();
    }
    assert_eq!(numbers(&db).await, [3, 0]);
}

#[tokio::test]
async fn of_the_connections_that_were_lost_while_they_were_idle_one_fails_a_read() {
    let db = ended(&World::new().unwrap()).await;
    let mut failed = 0;
    for _ in 0..6 {
        let read = db.run("read", |mut conn| async move {
            Ok::<_, DbError>(sqlx::raw_sql("SELECT n FROM t").execute(&mut *conn).await?)
        });
        failed += u32::from(read.await.is_err());
    }
    assert_eq!(failed, 1, "the others are validated before");
}

#[tokio::test]
async fn an_error_takes_everything_back() {
    let db = ledger().await;
    let outcome: Result<(), DbError> = db
        .transact("fail", |conn| {
            Box::pin(async move {
                add_one(conn, 1).await?;
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
            db.transact("cross", move |conn| {
                let (barrier, tries) = (barrier.clone(), tries.clone());
                Box::pin(async move {
                    add_one(conn, first).await?;
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
    one.unwrap();
    two.unwrap();
    assert_eq!(numbers(&db).await, [2, 2]);
    assert!(tries.load(Ordering::SeqCst) > 2, "there was no deadlock to try again after");
}

#[tokio::test]
async fn a_caller_that_goes_away_tears_nothing_and_poisons_no_connection() {
    let db = ledger().await;
    for pause_us in (0..60).map(|step| step * 50) {
        let work = db.transact("abandoned", |conn| {
            Box::pin(async move {
                add_one(conn, 1).await?;
                add_one(conn, 2).await
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
    let mut conn = db.acquire().await.unwrap();
    sqlx::query("UPDATE t SET n = 1000 WHERE id = 1").execute(&mut *conn).await.unwrap();
    drop(conn);
    assert_eq!(numbers(&db).await[0], 1000, "a write on a pooled connection was swallowed by an open transaction");
}

#[tokio::test]
async fn a_try_that_gets_no_answer_is_given_up_with_its_connection() {
    let world = World::new().unwrap();
    let ledger = ledger_in(&world).await;
    let db = impatient(&world, Duration::from_secs(1)).await;
    // The quickest of three counts: the machine may be busy with other tests.
    let (mut took, mut added) = (Duration::MAX, 0);
    while took >= Duration::from_secs(3) {
        assert!(added < 3, "given up after {took:?}");
        took = given_up_after(&db).await;
        assert_eq!(numbers(&db).await, [added, 0], "the only place in the pool is free again");
        // Or the server would notice late that nobody listens, and roll back then.
        end_sleep(&ledger).await;
        stampede_testkit::eventually("the lock of what was given up is gone", || async {
            ledger.transact("after", |conn| Box::pin(add_one(conn, 1))).await.ok()
        })
        .await;
        added += 1;
        assert_eq!(numbers(&db).await, [added, 0]);
    }
}

#[tokio::test]
async fn a_statement_that_gets_no_answer_keeps_no_connection() {
    let world = World::new().unwrap();
    ledger_in(&world).await;
    let db = impatient(&world, Duration::from_secs(1)).await;
    let hang = async {
        let mut conn = db.acquire().await?;
        sqlx::query("SELECT SLEEP(30)").execute(&mut *conn).await?;
        Ok(())
    };
    let error: DbError = db.in_time("hang", hang).await.unwrap_err();
    assert!(matches!(error, DbError::TimedOut { name: "hang", .. }), "{error}");
    assert_eq!(numbers(&db).await, [0, 0], "the only place in the pool is free again");
}

#[tokio::test]
async fn a_lock_that_somebody_keeps_is_waited_for_but_not_for_ever() {
    let world = World::new().unwrap();
    let holder = ledger_in(&world).await;
    let db = impatient(&world, Duration::from_secs(4)).await;
    let mut kept = holder.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut *kept).await.unwrap();
    add_one(&mut kept, 1).await.unwrap();
    let mut error = wait_in_vain(&db).await;
    for _ in 0..2 {
        // Where the machine stands still for two seconds, the time of both may be over at once.
        if matches!(error, DbError::TimedOut { .. }) {
            error = wait_in_vain(&db).await;
        }
    }
    assert!(error.is_deadlock(), "the server gives the wait up before the connection is: {error}");
    sqlx::raw_sql("COMMIT").execute(&mut *kept).await.unwrap();
    db.transact("wait", |conn| Box::pin(add_one(conn, 1))).await.unwrap();
    assert_eq!(numbers(&db).await, [2, 0]);
}

#[tokio::test]
async fn a_panic_takes_everything_back_and_is_no_matter_of_the_server() {
    let db = ledger().await;
    let outcome: Result<(), DbError> = db
        .transact("panic", |conn| {
            Box::pin(async move {
                add_one(conn, 1).await?;
                panic!("on purpose")
            })
        })
        .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, DbError::Panicked("panic")) && !error.is_unreachable(), "{error}");
    assert_eq!(numbers(&db).await, [0, 0]);
}

#[tokio::test]
async fn a_unique_violation_is_recognised_on_both_servers() {
    let db = ledger().await;
    let mut conn = db.acquire().await.unwrap();
    let twice: DbError = sqlx::query("INSERT INTO t VALUES (1, 0)").execute(&mut *conn).await.unwrap_err().into();
    assert_eq!(twice.unique_violation(), Some("PRIMARY"));
    let negative: DbError = sqlx::query("UPDATE t SET n = -1").execute(&mut *conn).await.unwrap_err().into();
    assert_eq!(negative.unique_violation(), None);
}

#[tokio::test]
async fn only_what_is_written_is_refused_for_good_on_both_servers() {
    let db = ledger().await;
    let mut conn = db.acquire().await.unwrap();
    sqlx::raw_sql("CREATE TABLE narrow (name VARCHAR(3), small TINYINT)").execute(&mut *conn).await.unwrap();
    for (sql, is_reproducible) in [
        ("INSERT INTO t VALUES (1, 0)", true),
        ("UPDATE t SET n = -1", true),
        ("UPDATE t SET n = NULL WHERE id = 1", true),
        ("INSERT INTO narrow VALUES ('four', 1)", true),
        ("INSERT INTO narrow VALUES ('one', 1000)", true),
        ("INSERT INTO narrow VALUES ('one', 'many')", true),
        ("INSERT INTO nowhere VALUES (1)", false),
        ("UPDATE t SET nothing = 1", false),
        ("SIGNAL SQLSTATE '45000'", false),
    ] {
        let error: DbError = sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap_err().into();
        assert_eq!(error.is_reproducible(), is_reproducible, "{sql}: {error}");
    }
    let newer = Problem::from(DbError::newer("an order in a state that is not known here"));
    assert_eq!(newer.reason(), Reason::Unavailable);
}

#[tokio::test]
async fn a_column_of_another_type_is_no_fault_of_a_row() {
    let db = ledger().await;
    let mut conn = db.acquire().await.unwrap();
    let read = sqlx::query_as::<_, (i32,)>("SELECT CAST(1 AS CHAR)").fetch_one(&mut *conn).await;
    let retyped: DbError = read.unwrap_err().into();
    assert!(!retyped.is_reproducible(), "{retyped}");
    let missing: DbError = sqlx::query_as::<_, (i32,)>("SELECT NULL").fetch_one(&mut *conn).await.unwrap_err().into();
    assert!(missing.is_reproducible(), "{missing}");
}

#[tokio::test]
async fn a_lock_that_outlives_its_retries_is_unavailable_and_says_when_to_try_again() {
    let world = World::new().unwrap();
    let db = ledger_in(&world).await;
    let mut holder = db.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE t SET n = 1 WHERE id = 1").execute(&mut *holder).await.unwrap();
    let mut waiter = db.acquire().await.unwrap();
    sqlx::raw_sql("SET innodb_lock_wait_timeout = 1").execute(&mut *waiter).await.unwrap();
    let locked = add_one(&mut waiter, 1).await.unwrap_err();
    assert!(locked.is_deadlock(), "{locked}");
    let problem = Problem::from(locked);
    assert_eq!(problem.reason(), Reason::Unavailable);
    assert!(problem.retry_delay().is_some());
    assert!(!problem.to_string().contains("Lock wait"), "{problem}");
}

#[tokio::test]
async fn the_clock_of_the_server_is_read() {
    let db = World::new().unwrap().schema(Service::Event).await.unwrap();
    // It is the clock of this machine, and the server reads it when it begins with the statement.
    let before = clock::machine();
    let there = db.time().await.unwrap();
    assert!(before <= there && there <= clock::machine(), "{there:?}, asked at {before:?}");
}
