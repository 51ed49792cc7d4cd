//! An event opens and closes once, on time, never early, whatever is lost on the way.

use crate::sale::{
    create, get, late_us, messages, reaches, replica, replica_without_sweep, request, whole_sale, world,
};
use anyhow::Result;
use futures_util::future::try_join_all;
use sqlx::Connection;
use stampede_lua::{Redis, RedisConfig, timer};
use stampede_proto::event::v1::EventState;
use stampede_testkit::Service;
use stampede_vocab::EventId;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn events_open_on_time_once_with_two_replicas() -> Result<()> {
    let world = world().await?;
    let (first, second) = (replica(&world).await?, replica(&world).await?);
    // Twenty openings, 50 ms apart, created by both replicas in turn.
    let creations = (0..20).map(|n| {
        let mut client = if n % 2 == 0 { first.event() } else { second.event() };
        let request = request(&format!("sale-{n}"), 2 * SECOND + n * Duration::from_millis(50), SECOND);
        async move { create(&mut client, request).await }
    });
    let created = try_join_all(creations).await?;

    let (db, client) = (world.database(Service::Event).await?, first.event());
    let mut lateness = Vec::new();
    for event in created {
        let closed = reaches(&client, &event.event_id, EventState::Closed).await;
        assert_eq!(messages(&db, &event.event_id).await?, whole_sale());
        assert_eq!(closed.version, 3);
        lateness.push(late_us(&closed)?);
    }
    lateness.sort_unstable();
    assert!(lateness[0] >= 0, "opened early: {lateness:?}");
    // The promise is about p99 on a quiet machine; tests share theirs with a compiler.
    assert!(lateness[lateness.len() / 2] < 50_000, "us late: {lateness:?}");
    first.stop().await?;
    second.stop().await
}

#[tokio::test]
async fn an_event_opens_when_its_notification_is_lost() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let created = create(&mut mesh.event(), request("sale", 2 * SECOND, SECOND)).await?;

    // A timer that does not exist never expires, so the listener receives nothing.
    let url = world.event_redis_url().to_owned();
    let redis = Redis::connect(RedisConfig { url, key_prefix: world.redis_key_prefix() }).await?;
    assert_eq!(timer::disarm(&redis, created.event_id.parse()?).await?, 2);

    let closed = reaches(&mesh.event(), &created.event_id, EventState::Closed).await;
    assert!(late_us(&closed)? >= 0);
    assert!(late_us(&closed)? < 500_000, "opened {} us late without a timer", late_us(&closed)?);
    assert_eq!(messages(&world.database(Service::Event).await?, &created.event_id).await?, whole_sale());
    mesh.stop().await
}

#[tokio::test]
async fn the_listener_opens_what_the_sweep_has_not_seen() -> Result<()> {
    let world = world().await?;
    let mut creator = replica(&world).await?;
    let listener = replica_without_sweep(&world).await?;
    let created = create(&mut creator.event(), request("sale", 2 * SECOND, SECOND)).await?;
    creator.kill_9(Service::Event)?;

    let closed = reaches(&listener.event(), &created.event_id, EventState::Closed).await;
    assert!(late_us(&closed)? >= 0);
    assert_eq!(messages(&world.database(Service::Event).await?, &created.event_id).await?, whole_sale());
    listener.stop().await
}

#[tokio::test]
async fn an_event_whose_sale_passed_unseen_opens_and_closes_afterwards() -> Result<()> {
    let world = world().await?;
    let mut mesh = replica(&world).await?;
    let created = create(&mut mesh.event(), request("sale", SECOND, SECOND / 10)).await?;
    mesh.kill_9(Service::Event)?;
    tokio::time::sleep(2 * SECOND).await;
    mesh.restart(Service::Event).await?;

    let closed = reaches(&mesh.event(), &created.event_id, EventState::Closed).await;
    assert_eq!(closed.actual_open_time, closed.actual_close_time);
    let metrics = mesh.metrics(Service::Event).await?;
    let missed = metrics.values("stampede_event_missed_transitions_total", &["transition=\"open\""]);
    assert_eq!(missed, [1.0], "it was {} us late", late_us(&closed)?);
    assert_eq!(messages(&world.database(Service::Event).await?, &created.event_id).await?, whole_sale());
    mesh.stop().await
}

#[tokio::test]
async fn an_event_that_somebody_has_locked_makes_no_other_late() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let locked = create(&mut client, request("locked", 2 * SECOND, 60 * SECOND)).await?;
    let free = create(&mut client, request("free", 2 * SECOND, 60 * SECOND)).await?;
    // By the sweep alone, which has both at a time.
    let url = world.event_redis_url().to_owned();
    let redis = Redis::connect(RedisConfig { url, key_prefix: world.redis_key_prefix() }).await?;
    for event in [&locked, &free] {
        assert_eq!(timer::disarm(&redis, event.event_id.parse()?).await?, 2);
    }
    // Or they could open before the lock is there.
    mesh.freeze(Service::Event, 0)?;
    let mut conn = world.database(Service::Event).await?.acquire().await?;
    let mut lock = conn.begin().await?;
    let id: EventId = locked.event_id.parse()?;
    sqlx::query("SELECT 1 FROM events WHERE id = ? FOR UPDATE").bind(id.uuid()).execute(&mut *lock).await?;

    mesh.thaw(Service::Event, 0)?;

    // Before the lock ends.
    reaches(&client, &free.event_id, EventState::Open).await;
    assert_eq!(get(&mut client, &locked.event_id).await?.state(), EventState::Scheduled);
    lock.rollback().await?;
    reaches(&client, &locked.event_id, EventState::Open).await;
    mesh.stop().await
}
