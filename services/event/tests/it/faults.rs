//! Redis, the database and replicas fail around an opening: the event opens all the same, once and not early.

use crate::sale::{
    create, get, in_time, late_us, messages, micros, plan_next_year, reaches, request, settings, whole_sale, world,
};
use anyhow::{Context, Result};
use stampede_proto::event::v1::{Event, EventState};
use stampede_testkit::{FreezeAt, Mesh, MeshBuilder, OwnRedis, Proxy, Service, World, Writes, eventually, heavy};
use stampede_vocab::Timestamp;
use std::{convert::Infallible, time::Duration};
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
/// What a Redis of timers needs.
const NOTIFYING: (&str, &str) = ("notify-keyspace-events", "Ex");
/// How late the sweep alone may be, on a machine that tests share.
const BY_THE_SWEEP: i64 = 500_000;

/// A replica on a Redis of the test's own.
fn on_redis(redis: &OwnRedis) -> MeshBuilder {
    settings().set(Service::Event, "STAMPEDE_REDIS_URL", redis.url())
}

/// Creates an event that opens in two seconds and stays open, another one in each round.
async fn opening_soon(mesh: &Mesh, round: u32) -> Result<Event> {
    create(&mut mesh.event(), request(&format!("sale-{round}"), 2 * SECOND, 60 * SECOND)).await
}

/// Whether an event that opened so late was in time.
fn judged(late_us: i64, limit_us: i64) -> Result<(), String> {
    if late_us < limit_us { Ok(()) } else { Err(format!("{late_us} us late")) }
}

/// Waits until the event is open, and checks that it opened once and not early. Returns how late it was.
async fn opens(world: &World, mesh: &Mesh, event: &Event) -> Result<i64> {
    let open = reaches(&mesh.event(), &event.event_id, EventState::Open).await;
    let opened = &whole_sale()[..2];
    assert_eq!(messages(&world.database(Service::Event).await?, &event.event_id).await?, opened);
    let late_us = late_us(&open)?;
    assert!(late_us >= 0, "{late_us} us");
    Ok(late_us)
}

/// Never returns but for a failure.
async fn cut_again_and_again(redis: &OwnRedis) -> Result<Infallible> {
    loop {
        redis.disconnect_subscribers().await?;
        sleep(SECOND / 50).await;
    }
}

#[tokio::test]
async fn an_event_opens_on_a_redis_that_has_ceased_to_notify() -> Result<()> {
    let _permit = heavy().await;
    let (world, redis) = (world().await?, OwnRedis::start(&[NOTIFYING]).await?);
    let mesh = on_redis(&redis).start(&world, [Service::Event]).await?;
    redis.stop_notifying().await?;
    in_time(async |round: u32| -> Result<Result<(), String>> {
        let event = opening_soon(&mesh, round).await?;
        Ok(judged(opens(&world, &mesh, &event).await?, BY_THE_SWEEP))
    })
    .await?;
    mesh.stop().await
}

#[tokio::test]
async fn an_event_opens_while_its_listeners_are_cut_again_and_again() -> Result<()> {
    let _permit = heavy().await;
    let (world, redis) = (world().await?, OwnRedis::start(&[NOTIFYING]).await?);
    let mesh = on_redis(&redis).start(&world, [Service::Event]).await?;
    in_time(async |round: u32| -> Result<Result<(), String>> {
        let event = opening_soon(&mesh, round).await?;
        let late_us = tokio::select! {
            opened = opens(&world, &mesh, &event) => opened?,
            failed = cut_again_and_again(&redis) => match failed? {},
        };
        Ok(judged(late_us, BY_THE_SWEEP))
    })
    .await?;
    mesh.stop().await
}

/// How late an event opens on a Redis that is restarted before, with its data or without.
async fn late_after_a_restart(is_durable: &str) -> Result<i64> {
    let (world, redis) = (world().await?, OwnRedis::start(&[NOTIFYING, ("appendonly", is_durable)]).await?);
    let mesh = on_redis(&redis).start(&world, [Service::Event]).await?;
    let event = opening_soon(&mesh, 1).await?;
    let _redis = redis.restart().await?;
    let late_us = opens(&world, &mesh, &event).await?;
    mesh.stop().await?;
    Ok(late_us)
}

#[tokio::test]
async fn an_event_opens_on_a_redis_that_was_restarted_with_its_data_and_without() -> Result<()> {
    let _permit = heavy().await;
    for is_durable in ["yes", "no"] {
        in_time(async |_: u32| -> Result<Result<(), String>> {
            Ok(judged(late_after_a_restart(is_durable).await?, BY_THE_SWEEP))
        })
        .await
        .with_context(|| format!("with appendonly {is_durable}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn an_event_opens_whichever_replica_is_killed_just_before() -> Result<()> {
    let _permit = heavy().await;
    let world = world().await?;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(settings().start(&world, [Service::Event]).await?);
    }
    for victim in 0..replicas.len() {
        let other = (victim + 1) % replicas.len();
        in_time(async |round: u32| -> Result<Result<(), String>> {
            let request = request(&format!("sale-{victim}-{round}"), SECOND, 60 * SECOND);
            let event = create(&mut replicas[victim].event(), request).await?;
            let open_time = Timestamp::from_micros(micros(event.open_time.as_ref())?);
            sleep(open_time.minus(SECOND / 20).since(Timestamp::now())).await;
            replicas[victim].kill_9(Service::Event)?;
            // A replica that had it locked when it died lets it go when its connection ends.
            let late_us = opens(&world, &replicas[other], &event).await?;
            replicas[victim].restart(Service::Event).await?;
            Ok(judged(late_us, 2 * BY_THE_SWEEP))
        })
        .await
        .with_context(|| format!("without replica {victim}"))?;
    }
    for replica in replicas {
        replica.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_event_opens_soon_after_a_database_that_was_away_at_its_time() -> Result<()> {
    let _permit = heavy().await;
    let world = world().await?;
    let database = Proxy::to_url(&world.service_database_url(Service::Event)).await?;
    let mesh = settings().set(Service::Event, "STAMPEDE_DATABASE_URL", database.url());
    let mesh = mesh.start(&world, [Service::Event]).await?;
    in_time(async |round: u32| -> Result<Result<(), String>> {
        let event = opening_soon(&mesh, round).await?;
        database.freeze(Writes::With(b"SELECT".to_vec()), FreezeAt::Before(1));
        let (mut client, event_id) = (mesh.event(), event.event_id.clone());
        // It is answered or not.
        let asked = tokio::spawn(async move { get(&mut client, &event_id).await });
        timeout(10 * SECOND, database.frozen()).await?;
        let open_time = Timestamp::from_micros(micros(event.open_time.as_ref())?);
        sleep(open_time.plus(4 * SECOND).since(Timestamp::now())).await;

        let back = Timestamp::now();
        database.cut();
        asked.abort();
        let late_us = opens(&world, &mesh, &event).await?;
        let after_return = open_time.micros() + late_us - back.micros();
        let is_in_time = (0..3_000_000).contains(&after_return);
        Ok(if is_in_time { Ok(()) } else { Err(format!("{after_return} us after the database was back")) })
    })
    .await?;
    mesh.stop().await
}

#[tokio::test]
async fn a_listener_that_connects_anew_arms_what_is_near_and_not_all_that_is_planned() -> Result<()> {
    let _permit = heavy().await;
    let (world, redis) = (world().await?, OwnRedis::start(&[NOTIFYING]).await?);
    let mesh = on_redis(&redis).start(&world, [Service::Event]).await?;
    plan_next_year(&world, 10_000).await?;
    let before = redis.calls("evalsha").await?;
    let subscribed = redis.calls("subscribe").await?;
    redis.disconnect_subscribers().await?;
    eventually("the listener is back", || async { (redis.calls("subscribe").await.ok()? > subscribed).then_some(()) })
        .await;

    let event = opening_soon(&mesh, 1).await?;
    opens(&world, &mesh, &event).await?;
    let scripts = redis.calls("evalsha").await? - before;
    assert!(scripts < 20, "{scripts} scripts for one event that is near");
    assert!(redis.keys().await? < 5);
    mesh.stop().await
}
