//! Reads of more gaps than one statement covers, over a link that is too slow for a whole page, and behind messages
//! that were deleted.

mod deleted;

use super::*;
use crate::{
    PARTITIONS,
    send::Sender,
    shared::{Shared, View},
};
use stampede_db::{Database, DbConfig, Statement};
use stampede_testkit::{Proxy, Service, World};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Whose leases they are, and their epoch.
const OWNER: &str = "2-test";
const EPOCH: u64 = 7;

/// Writes rows as a server that counts in such steps does: two to the power of `times`, from id `step` on.
async fn write_in_steps(conn: &mut MySqlConnection, step: u64, times: u32) {
    let mut first = Statement::new(
        "INSERT INTO outbox (partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, created_us, \
         id) VALUES (3, 'event', 'evt_1', 1, 'stampede.message.v1.EventOpened', '', 1, ",
    );
    first.push_bind(step).push(")").execute(conn).await.unwrap();
    double(conn, step, times).await;
}

/// Doubles the rows so many times. Their ids are at most `step`, and the copies of each doubling follow those before.
async fn double(conn: &mut MySqlConnection, step: u64, times: u32) {
    for time in 0..times {
        let mut double = Statement::new(
            "INSERT INTO outbox (id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, \
             created_us) SELECT id + ",
        );
        double.push_bind(step << time).push(", partition_no, aggregatetype, aggregateid, aggregate_version, type, ");
        double.push("payload, created_us FROM outbox").execute(conn).await.unwrap();
    }
}

async fn lease_all(conn: &mut MySqlConnection) {
    let mut lease = Statement::new("UPDATE outbox_leases SET owner = ");
    lease.push_bind(OWNER).push(", epoch = ").push_bind(EPOCH).execute(conn).await.unwrap();
}

/// One with all leases, whose messages go nowhere.
fn sending(db: Database) -> Sending {
    let sender = Sender::new("127.0.0.1:1".to_owned(), "any".to_owned(), "/any".to_owned(), false).unwrap();
    let (_, view) = watch::channel(View::none());
    let (woken, shared) = (Arc::new(Notify::new()), Arc::new(Shared::default()));
    let mut sending = Sending::new(db, OWNER.to_owned(), "any".to_owned(), sender, woken, shared, view);
    let lease = |partition| (partition, Lease { epoch: EPOCH, is_leaving: false });
    sending.seen.leases = (0..PARTITIONS).map(lease).collect();
    sending
}

/// All is read and passed on long before a gap is given up.
#[tokio::test]
async fn more_gaps_than_one_statement_covers_are_looked_into_in_turn() {
    const TIMES: u32 = 12;
    let world = World::new().unwrap();
    let schema = world.schema(Service::Event).await.unwrap();
    let mut conn = schema.acquire().await.unwrap();
    write_in_steps(&mut conn, 3, TIMES).await;
    lease_all(&mut conn).await;
    // No gap is given up while this test runs.
    let (work_timeout, idle_timeout) = (Duration::from_secs(600), Duration::from_secs(700));
    let config = DbConfig { work_timeout, idle_timeout, ..DbConfig::default() };
    let url = world.service_database_url(Service::Event);
    let mut sending = sending(Database::connect(&url, config).await.unwrap());

    let (mut read, mut rounds) = (Vec::new(), 0);
    while read.len() < 1 << TIMES {
        let (answer, ready) = sending.read(&mut conn).await.unwrap().expect("it has every partition");
        read.extend(sending.note(answer, ready).into_iter().map(|row| row.id));
        rounds += 1;
        assert!(rounds < 100, "{} rows were read", read.len());
    }
    let expected: Vec<u64> = (1..=1 << TIMES).map(|number| 3 * number).collect();
    assert_eq!(read, expected, "each once, in their order");
    assert!(rounds > 10, "the gaps took more than one statement");

    // What comes late is found where a gap was.
    let mut late = Statement::new(
        "INSERT INTO outbox (id, partition_no, aggregatetype, aggregateid, aggregate_version, type, payload, \
         created_us) VALUES (4, 3, 'event', 'evt_2', 1, 'stampede.message.v1.EventOpened', '', 1)",
    );
    late.execute(&mut conn).await.unwrap();
    let mut found = Vec::new();
    for _ in 0..40 {
        let (answer, ready) = sending.read(&mut conn).await.unwrap().expect("it has every partition");
        found.extend(sending.note(answer, ready).into_iter().map(|row| row.id));
    }
    assert_eq!(found, [4]);
}

#[tokio::test]
async fn a_read_that_does_not_end_in_time_asks_for_half_as_many_rows_the_next_time() {
    let world = World::new().unwrap();
    let schema = world.schema(Service::Event).await.unwrap();
    let mut conn = schema.acquire().await.unwrap();
    write_in_steps(&mut conn, 1, 11).await;
    lease_all(&mut conn).await;
    let proxy = Proxy::to_url(&world.service_database_url(Service::Event)).await.unwrap();
    let config = DbConfig { work_timeout: Duration::from_secs(2), ..DbConfig::default() };
    let mut sending = sending(Database::connect(proxy.url(), config).await.unwrap());
    let later = Instant::now() + Duration::from_secs(600);
    sending.seen.valid_until = later;
    assert_eq!((sending.try_round().await.unwrap().read, sending.most_retries()), (1_000, 500));

    // The leases end before the read does.
    proxy.freeze_now();
    sending.seen.valid_until = Instant::now() + Duration::from_millis(100);
    let broken_off = sending.try_round().await;
    assert!(matches!(broken_off, Err(DbError::BrokenOff(_))), "{broken_off:?}");
    proxy.thaw();
    sending.seen.valid_until = later;
    let halved = sending.try_round().await.unwrap();
    assert_eq!((halved.read, halved.is_full), (500, true), "all is read again, from the floors on");

    proxy.freeze_now();
    let timed_out = sending.try_round().await;
    assert!(matches!(timed_out, Err(DbError::TimedOut { .. })), "{timed_out:?}");
    proxy.thaw();
    let halved = sending.try_round().await.unwrap();
    assert_eq!((halved.read, halved.is_full), (250, true), "all is read again, from the floors on");
    assert_eq!(sending.most_retries(), 250, "no more are sent again at a time than are read");
}
