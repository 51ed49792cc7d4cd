//! Connections that return to the pool: reused as they are after work that succeeded, and validated after any other.

use futures_util::FutureExt;
use sqlx::{Connection, MySqlConnection, raw_sql};
use stampede_db::{Database, DbConfig, DbError, Statement};
use stampede_testkit::{FreezeAt, Proxy, Service, World, Writes};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Long enough for a machine under load to connect.
const SOON: Duration = Duration::from_secs(1);
/// So that no idle connection is pinged while writes are counted.
const NEVER: Duration = Duration::from_secs(600);

/// A table of one row, a pool of one connection to it, and the others who use it.
struct Row {
    link: Proxy,
    db: Database,
    others: Database,
}

impl Row {
    async fn new() -> Self {
        let world = World::new().unwrap();
        let others = world.schema(Service::Event).await.unwrap();
        let table = "CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL); INSERT INTO t VALUES (1, 0)";
        raw_sql(table).execute(&mut *others.acquire().await.unwrap()).await.unwrap();
        let link = Proxy::to_url(&world.service_database_url(Service::Event)).await.unwrap();
        let config = DbConfig { max_connections: 1, idle_timeout: NEVER, ..DbConfig::default() };
        let db = Database::connect(link.url(), config).await.unwrap();
        Self { link, db, others }
    }

    /// Fails unless the only connection of the pool sees this number, and others see what it writes: one inside of a
    /// transaction would keep that to itself.
    async fn has(&self, expected: i32) {
        assert_eq!(number(&self.db).await, expected);
        self.db.run("add", |mut conn| async move { add_one(&mut conn).await }).await.unwrap();
        assert_eq!(number(&self.others).await, expected + 1);
    }
}

/// As text, which is one write.
async fn number(db: &Database) -> i32 {
    let read = db.run("read", |mut conn| async move { Statement::new("SELECT n FROM t").fetch_all(&mut conn).await });
    let rows: Vec<(i32,)> = read.await.unwrap();
    rows[0].0
}

async fn add_one(conn: &mut MySqlConnection) -> Result<(), DbError> {
    raw_sql("UPDATE t SET n = n + 1").execute(conn).await?;
    Ok(())
}

/// The id of the one connection of the pool.
async fn connection(db: &Database) -> i64 {
    let id = "SELECT CAST(CONNECTION_ID() AS SIGNED)";
    let read = db.run("read", |mut conn| async move { Statement::new(id).fetch_all(&mut conn).await });
    let rows: Vec<(i64,)> = read.await.unwrap();
    rows[0].0
}

fn is_timed_out(error: &DbError) -> bool {
    matches!(error, DbError::Sqlx(error) if matches!(**error, sqlx::Error::PoolTimedOut)) && error.is_unreachable()
}

#[tokio::test]
async fn work_that_ends_well_costs_its_statements_and_no_more() {
    const ROUNDS: usize = 5;
    let row = Row::new().await;
    let before = row.link.writes();
    for _ in 0..ROUNDS {
        number(&row.db).await;
        row.db.transact("add", |conn| Box::pin(add_one(conn))).await.unwrap();
        let work = row.db.transact("refuse", |conn| {
            Box::pin(async move {
                add_one(conn).await?;
                Err::<(), _>(DbError::inconsistent("on purpose"))
            })
        });
        assert!(work.await.is_err());
    }
    // One to read, and BEGIN, UPDATE, COMMIT or ROLLBACK.
    assert_eq!(row.link.writes() - before, ROUNDS * (1 + 3 + 3));
    assert_eq!(number(&row.db).await, 5);
}

#[tokio::test]
async fn a_connection_that_work_was_cut_off_from_is_drained_and_rolled_back_before_its_next_use() {
    let row = Row::new().await;
    let before = connection(&row.db).await;
    row.link.freeze(Writes::With(b"UPDATE t".to_vec()), FreezeAt::After(1));
    let mut work = Box::pin(row.db.run("cut", |mut conn| async move {
        let sql = "BEGIN; UPDATE t SET n = n + 1; SELECT n FROM t";
        Ok::<_, DbError>(raw_sql(sql).execute(&mut *conn).await?)
    }));
    tokio::select! {
        _ = row.link.frozen() => {}
        done = &mut work => panic!("it was not cut: {done:?}"),
    }
    // The server has begun and written, and all of its answers are still on their way.
    drop(work);
    row.link.thaw();
    let writes = row.link.writes();
    assert_eq!(number(&row.db).await, 0, "it is rolled back");
    assert_eq!(row.link.writes() - writes, 3, "the ping, the ROLLBACK and the statement");
    row.has(0).await;
    assert_eq!(connection(&row.db).await, before, "one that answers is no reason to connect anew");
}

#[tokio::test]
async fn a_connection_that_comes_back_inside_of_a_transaction_swallows_nothing() {
    let row = Row::new().await;
    let mut conn = row.db.acquire().await.unwrap();
    raw_sql("BEGIN").execute(&mut *conn).await.unwrap();
    add_one(&mut conn).await.unwrap();
    drop(conn);
    row.has(0).await;
    let mut conn = row.db.acquire().await.unwrap();
    let mut begun = conn.begin().await.unwrap();
    add_one(&mut begun).await.unwrap();
    drop(begun);
    drop(conn);
    row.has(1).await;
    let work = row.db.run("fail", |mut conn| async move {
        raw_sql("BEGIN").execute(&mut *conn).await?;
        add_one(&mut conn).await?;
        Err::<(), DbError>(DbError::inconsistent("on purpose"))
    });
    assert!(work.await.is_err());
    row.has(2).await;
}

#[tokio::test]
async fn a_connection_that_outlives_its_work_is_validated_although_the_work_succeeded() {
    let row = Row::new().await;
    let kept = row.db.run("keep", |conn| async move { Ok::<_, DbError>(conn) }).await;
    let mut conn = kept.unwrap();
    raw_sql("BEGIN").execute(&mut *conn).await.unwrap();
    add_one(&mut conn).await.unwrap();
    drop(conn);
    row.has(0).await;
}

#[tokio::test]
async fn a_connection_is_waited_for_in_turn() {
    let row = Row::new().await;
    let held = row.db.acquire().await.unwrap();
    let (mut first, mut second) = (Box::pin(row.db.acquire()), Box::pin(row.db.acquire()));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(held);
    assert!(second.as_mut().now_or_never().is_none(), "the first one came before");
    let held = first.await.unwrap();
    assert!(second.as_mut().now_or_never().is_none(), "there is one connection");
    drop(held);
    drop(second.await.unwrap());
}

#[tokio::test]
async fn a_connection_is_not_waited_for_without_end() {
    let world = World::new().unwrap();
    drop(world.schema(Service::Event).await.unwrap());
    let config = DbConfig { max_connections: 1, acquire_timeout: SOON, ..DbConfig::default() };
    let db = Database::connect(&world.service_database_url(Service::Event), config).await.unwrap();
    let held = db.acquire().await.unwrap();
    let error = db.acquire().await.unwrap_err();
    assert!(is_timed_out(&error), "{error}");
    drop(held);
    drop(db.acquire().await.unwrap());
}

#[tokio::test]
async fn a_server_that_says_nothing_or_is_not_there_is_given_up_within_the_time_for_a_connection() {
    let config = DbConfig { acquire_timeout: SOON, ..DbConfig::default() };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://root@{}/nothing", silent.local_addr().unwrap());
    let error = Database::connect(&url, config).await.unwrap_err();
    assert!(is_timed_out(&error), "{error}");
    drop(silent);
    let started = Instant::now();
    let error = Database::connect(&url, config).await.unwrap_err();
    assert!(is_timed_out(&error), "{error}");
    assert!(started.elapsed() >= SOON, "it may be about to start");
}
