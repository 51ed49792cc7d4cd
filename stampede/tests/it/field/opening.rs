//! Many events that open at one instant, many of them without their timers.

use super::{item, long_case};
use crate::sale::{Sale, eur, fresh};
use sqlx::MySqlPool;
use stampede_lua::{Redis, RedisConfig, timer};
use stampede_proto::{
    convert::timestamp,
    event::v1::{CreateEventRequest, Event, EventState, WatchEventsRequest, event_service_client::EventServiceClient},
};
use stampede_testkit::{Mesh, Service, World, as_operator, eventually};
use stampede_vocab::{EventId, Timestamp};
use std::{
    env,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

/// Events of one instant, unless `STAMPEDE_TEST_OPENINGS` has another number, and the clients that create them.
const EVENTS: usize = 400;
const OPERATORS: usize = 8;
/// Events that are created before, to measure the speed of this machine, and the time until these open.
const TRIED: usize = 80;
const TRIED_OPEN_IN: Duration = Duration::from_secs(1_800);
/// Time for which each is open: too long for its end to have a timer yet.
const OPEN_FOR: Duration = Duration::from_secs(600);
/// Factor by which it may be slower afterwards.
const SLOWER: usize = 2;
/// Time before that instant at which the timers are deleted, of one event in so many.
const DELETED_BEFORE: Duration = Duration::from_secs(5);
const DELETED_ONE_IN: usize = 2;
/// Largest lateness of an event, in milliseconds, while other tests load the machine.
const LATEST_MS: i64 = 3_000;
/// Type of the message of an opening, in the outbox.
const OPENED: &str = "stampede.message.v1.EventOpened";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_open_at_one_instant() {
    let Some(_permit) = long_case(10).await else { return };
    let world = World::prepared().await.unwrap();
    let mesh = Mesh::start(&world).await.unwrap();
    case_10_events_of_one_instant_open_on_time_with_and_without_their_timers(world, mesh).await;
}

async fn case_10_events_of_one_instant_open_on_time_with_and_without_their_timers(world: World, mesh: Mesh) {
    let open_in = time_to_create(&mesh).await + DELETED_BEFORE;
    let open_time = Timestamp::now().plus(open_in);
    let ids = created(&mesh, how_many(), open_time).await;
    let until_deletion = open_time.minus(DELETED_BEFORE).since(Timestamp::now());
    assert!(!until_deletion.is_zero(), "case 10: {} events were not created in time", ids.len());
    let last = ids.last().unwrap();
    let watcher = tokio::spawn(opening_seen(mesh.event(), last.clone()));
    sleep(until_deletion).await;
    delete_timers(&world, &ids).await;

    let url = format!("{}?ssl-mode=disabled", world.service_database_url(Service::Event));
    let events = MySqlPool::connect(&url).await.unwrap();
    let count = i64::try_from(ids.len()).unwrap();
    let (first_us, last_us) = eventually("case 10: all are open", || async {
        let (open, first_us, last_us) = opened(&events).await;
        (open == count).then_some((first_us, last_us))
    })
    .await;
    assert!(first_us >= 0 && last_us <= LATEST_MS * 1_000, "case 10: {first_us} to {last_us} us late");
    let published = "SELECT COUNT(*), COUNT(DISTINCT aggregateid) FROM outbox WHERE type = ?";
    let published: (i64, i64) = sqlx::query_as(published).bind(OPENED).fetch_one(&events).await.unwrap();
    assert_eq!(published, (count, count), "case 10: each is published once");
    timeout(DELETED_BEFORE, watcher).await.expect("case 10: a watcher is notified").unwrap();

    let event = Event { event_id: last.clone(), ..Event::default() };
    let within_ms = LATEST_MS.to_string();
    let audit = Sale { world, mesh, event }.run_audit(&["--open-within-ms", &within_ms, "--quiet-deadline-s", "60"]);
    assert!(audit.holds, "case 10: {audit:#?}");
}

/// Returns the number of events that are due at that instant.
fn how_many() -> usize {
    env::var("STAMPEDE_TEST_OPENINGS").map_or(EVENTS, |number| number.parse().expect("STAMPEDE_TEST_OPENINGS"))
}

/// Returns the longest time to create all events, by the measured time of some of them.
async fn time_to_create(mesh: &Mesh) -> Duration {
    let started = Instant::now();
    created(mesh, TRIED, Timestamp::now().plus(TRIED_OPEN_IN)).await;
    started.elapsed() * u32::try_from(SLOWER * how_many().div_ceil(TRIED)).unwrap()
}

/// Creates so many events, to open at this instant. Returns their ids.
async fn created(mesh: &Mesh, count: usize, open_time: Timestamp) -> Vec<String> {
    let mut operators = JoinSet::new();
    for _ in 0..OPERATORS {
        let client = mesh.event();
        operators.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..count / OPERATORS {
                let request = CreateEventRequest {
                    request_id: fresh(),
                    name: "one of many".to_owned(),
                    open_time: Some(timestamp(open_time)),
                    close_time: Some(timestamp(open_time.plus(OPEN_FOR))),
                    items: vec![item(eur(1_999), 1, 1)],
                };
                // A call may fail with a connection that its server closes for its age, and is retried.
                let created = eventually("case 10: an event is created", || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move { client.create_event(as_operator(request)).await.ok() }
                });
                ids.push(created.await.into_inner().event.unwrap().event_id);
            }
            ids
        });
    }
    operators.join_all().await.concat()
}

/// Deletes the keys of some events, so that their expiry is not published.
async fn delete_timers(world: &World, ids: &[String]) {
    let config = RedisConfig { url: world.event_redis_url().to_owned(), key_prefix: world.redis_key_prefix() };
    let redis = Redis::connect(config).await.unwrap();
    for id in ids.iter().step_by(DELETED_ONE_IN) {
        let id: EventId = id.parse().unwrap();
        assert_eq!(timer::disarm(&redis, id).await.unwrap(), 1, "case 10: {id} has its timer until then");
    }
}

/// Returns how many events are open, and by how many microseconds the first and the last of them were late.
async fn opened(events: &MySqlPool) -> (i64, i64, i64) {
    let sql = "SELECT COUNT(*), COALESCE(MIN(opened_at_us - opens_at_us), 0), \
               COALESCE(MAX(opened_at_us - opens_at_us), 0) FROM events WHERE opened_at_us IS NOT NULL";
    sqlx::query_as(sql).fetch_one(events).await.unwrap()
}

/// Returns once a watcher of the event is notified that it is open.
async fn opening_seen(mut client: EventServiceClient<Channel>, event_id: String) {
    let request = WatchEventsRequest { event_ids: vec![event_id] };
    let mut changes = client.watch_events(request).await.unwrap().into_inner();
    while let Some(message) = changes.message().await.unwrap() {
        if message.event.unwrap().state() == EventState::Open {
            return;
        }
    }
    panic!("case 10: the stream has ended before the event was open");
}
