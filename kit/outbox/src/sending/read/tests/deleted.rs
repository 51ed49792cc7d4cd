//! Messages that were sent and deleted, which the server keeps for a session with a long read view. Whatever reads over
//! them takes time for each.

use super::{double, lease_all, sending};
use crate::{
    append::{OutboxMessage, append},
    purge::Purge,
    relay::{Relay, RelayConfig},
    sending::Sending,
    shared::View,
};
use sqlx::MySqlConnection;
use stampede_db::{Conn, Database};
use stampede_testkit::{Service, World, eventually};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Messages that are sent to Kafka.
const SENT: usize = 1_000;
/// How often they are doubled then: to 128,000 that count as sent.
const DOUBLINGS: u32 = 7;
/// More batches of the purge than that takes.
const BATCHES: usize = 32;
/// Tries of which the fastest counts: the machine has other work too.
const TRIES: usize = 20;
/// How many times as long what reads over the deleted messages takes at least. It is far more.
const FACTOR: u32 = 3;

fn message(number: usize) -> OutboxMessage {
    OutboxMessage {
        aggregate_type: "event",
        aggregate_id: format!("evt_{number}"),
        aggregate_version: 1,
        message_type: "stampede.message.v1.EventOpened".to_owned(),
        payload: vec![1, 2, 3],
        traceparent: None,
    }
}

/// Begins what a dump or a long report does, on a connection of its own.
async fn open_view(db: &Database) -> Conn {
    let mut view = db.acquire().await.unwrap();
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    sqlx::raw_sql(begin).execute(&mut *view).await.unwrap();
    assert_eq!(messages(&mut view).await, 0);
    view
}

async fn messages(conn: &mut MySqlConnection) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM outbox").fetch_one(conn).await.unwrap()
}

/// Writes messages, and sends them by a relay that ends then.
async fn write_and_send(world: &World, db: &Database) {
    let mut conn = db.acquire().await.unwrap();
    append(&mut conn, &(0..SENT).map(message).collect::<Vec<_>>()).await.unwrap();
    drop(conn);
    let config = RelayConfig::new(world.brokers(), world.topic_prefix(), Service::Event);
    let (_outbox, relay) = Relay::new(config, db.clone()).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(stop.clone()));
    let behind = "SELECT COUNT(*) FROM outbox_leases WHERE floor_id < (SELECT MAX(id) FROM outbox)";
    eventually("all is sent", || async {
        let mut conn = db.acquire().await.unwrap();
        let behind: i64 = sqlx::query_scalar(behind).fetch_one(&mut *conn).await.unwrap();
        (behind == 0).then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

/// Makes many more of them, of long ago, which are sent as far as a relay can know.
async fn multiply(conn: &mut MySqlConnection) {
    sqlx::raw_sql("UPDATE outbox SET created_us = 1").execute(&mut *conn).await.unwrap();
    let last: u64 = sqlx::query_scalar("SELECT MAX(id) FROM outbox").fetch_one(&mut *conn).await.unwrap();
    double(conn, last, DOUBLINGS).await;
    raise_floors(conn).await;
}

/// Returns how long a batch of the purge takes at best that deletes one message.
async fn deleting_takes(purge: &mut Purge, conn: &mut MySqlConnection) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let long_ago = "INSERT INTO outbox (partition_no, aggregatetype, aggregateid, aggregate_version, type, \
                        payload, created_us) VALUES (3, 'event', 'evt_1', 1, 'stampede.message.v1.EventOpened', '', 1)";
        sqlx::raw_sql(long_ago).execute(&mut *conn).await.unwrap();
        raise_floors(conn).await;
        let started = Instant::now();
        purge.batch().await;
        shortest = shortest.min(started.elapsed());
    }
    assert_eq!(messages(conn).await, 0, "each is purged");
    shortest
}

async fn raise_floors(conn: &mut MySqlConnection) {
    let raise = "UPDATE outbox_leases SET floor_id = (SELECT MAX(id) FROM outbox)";
    sqlx::raw_sql(raise).execute(conn).await.unwrap();
}

fn purge_of(db: &Database) -> Purge {
    let (_, view) = watch::channel(View::none());
    Purge::new(db.clone(), view)
}

/// Returns how long this takes at best.
async fn shortest<T>(mut work: impl AsyncFnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let started = Instant::now();
        work().await;
        shortest = shortest.min(started.elapsed());
    }
    shortest
}

/// Returns how long the same read takes at best: the cursor stays where it is.
async fn reading_takes(sending: &mut Sending, conn: &mut MySqlConnection) -> Duration {
    shortest(async || sending.read(conn).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_costs_nothing_though_the_server_keeps_it_for_a_long_read_view() {
    let world = World::new().unwrap();
    let db = world.schema(Service::Event).await.unwrap();
    world.create_topics().await.unwrap();
    let mut view = open_view(&db).await;
    write_and_send(&world, &db).await;
    let mut conn = db.acquire().await.unwrap();
    multiply(&mut conn).await;
    let mut purge = purge_of(&db);
    for _ in 0..BATCHES {
        purge.batch().await;
    }
    assert_eq!(messages(&mut conn).await, 0, "all are purged");
    let deleting = deleting_takes(&mut purge, &mut conn).await;
    // Sent a moment ago, and kept.
    append(&mut conn, &[message(SENT)]).await.unwrap();
    raise_floors(&mut conn).await;

    // One that begins reads over all of them, which shows that they are still there, and that this can be seen.
    let anew = shortest(async || purge_of(&db).batch().await).await;
    let on = shortest(async || purge.batch().await).await;
    assert!(on * FACTOR < anew, "the purge goes on in {on:?}, and begins in {anew:?}");
    assert!(deleting < anew, "the purge deletes a message in {deleting:?}, and begins in {anew:?}");

    append(&mut conn, &[message(SENT + 1)]).await.unwrap();
    lease_all(&mut conn).await;
    let mut behind_floors = sending(db.clone());
    let (answer, _) = behind_floors.read(&mut conn).await.unwrap().expect("it has every partition");
    assert_eq!(answer.next.len(), 1, "it finds what is unsent");
    let behind = reading_takes(&mut behind_floors, &mut conn).await;
    sqlx::raw_sql("UPDATE outbox_leases SET floor_id = 0").execute(&mut *conn).await.unwrap();
    let mut from_the_head = sending(db.clone());
    let (answer, _) = from_the_head.read(&mut conn).await.unwrap().expect("it has every partition");
    assert_eq!(answer.next.len(), 2, "it finds what was sent and is kept too");
    let from = reading_takes(&mut from_the_head, &mut conn).await;
    assert!(behind * FACTOR < from, "a read takes {behind:?} behind the floors, and {from:?} from the head");
    assert_eq!(messages(&mut view).await, 0, "the view was there all the time");
}
