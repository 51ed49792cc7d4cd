//! A row that makes no event harms its event, and none beside it.

use crate::sale::{create, get, in_time, late_us, reaches, refusal, replica, request, retime, world};
use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt};
use stampede_lua::{Redis, RedisConfig, timer};
use stampede_proto::event::v1::{Event, EventState, GetEventRequest, ListEventsRequest, WatchEventsRequest};
use stampede_status::Reason;
use stampede_testkit::{Mesh, Service, World, eventually};
use stampede_vocab::{EventId, Timestamp};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// It is open, was never opened, and is due.
const ODD: &str = "UPDATE events SET state = 'OPEN', due_at_us = created_us WHERE id = ?";
/// Only a newer release knows this state.
const NEWER: &str = "UPDATE events SET state = 'PAUSED', due_at_us = created_us WHERE id = ?";
/// Its items are sold in no currency.
const ITEMS: &str = "UPDATE items SET currency = 'e?!' WHERE event_id = ?";

/// Creates an event for each of these statements, which makes it one that cannot be read.
async fn spoilt(world: &World, mesh: &Mesh, spoils: &[&'static str]) -> Result<Vec<Event>> {
    let db = world.database(Service::Event).await?;
    let unchecked = "ALTER TABLE events DROP CONSTRAINT ck_events_state";
    sqlx::raw_sql(unchecked).execute(&mut *db.acquire().await?).await?;
    let mut events = Vec::new();
    for (number, spoil) in spoils.iter().enumerate() {
        let event = create(&mut mesh.event(), request(&format!("bad-{number}"), HOUR, HOUR)).await?;
        let id: EventId = event.event_id.parse()?;
        let changed = sqlx::query(*spoil).bind(id.uuid()).execute(&mut *db.acquire().await?).await?;
        ensure!(changed.rows_affected() > 0, "nothing was changed by {spoil}");
        events.push(event);
    }
    Ok(events)
}

/// The ids of all events, in pages of one.
async fn listed(mesh: &Mesh) -> Result<Vec<String>> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEventsRequest { page_size: 1, page_token };
        let page = mesh.event().list_events(request).await?.into_inner();
        ids.extend(page.events.into_iter().map(|event| event.event_id));
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}

async fn why_it_is_not_read(mesh: &Mesh, event: &Event) -> Reason {
    let request = GetEventRequest { event_id: event.event_id.clone() };
    refusal(&mesh.event().get_event(request).await.expect_err("it cannot be read")).0
}

#[tokio::test]
async fn an_event_that_cannot_be_read_fails_alone_and_others_go_on_beside_it() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let first = create(&mut mesh.event(), request("first", HOUR, HOUR)).await?;
    let bad = spoilt(&world, &mesh, &[ODD, NEWER, ITEMS]).await?;
    let last = create(&mut mesh.event(), request("last", HOUR, HOUR)).await?;

    let mut reasons = Vec::new();
    for event in &bad {
        reasons.push(why_it_is_not_read(&mesh, event).await);
    }
    assert_eq!(reasons, [Reason::Internal, Reason::Unavailable, Reason::Internal]);
    assert_eq!(listed(&mesh).await?, [last.event_id.clone(), first.event_id.clone()]);
    let event_ids = bad.iter().chain([&last]).map(|event| event.event_id.clone()).collect();
    let stream = mesh.event().watch_events(WatchEventsRequest { event_ids }).await?.into_inner();
    let mut watched = stream.map(|answer| answer?.event.context("an event"));
    let found = watched.try_next().await?.context("the state now")?;
    assert_eq!((&found.event_id, found.state()), (&last.event_id, EventState::Scheduled));
    let (db, now) = (world.database(Service::Event).await?, Timestamp::now());
    retime(&db, &last.event_id, now, now.plus(HOUR)).await?;
    let opened = watched.try_next().await?.context("the next state")?;
    assert_eq!((&opened.event_id, opened.state()), (&last.event_id, EventState::Open));
    drop(watched);
    mesh.stop().await
}

#[tokio::test]
async fn events_beside_one_that_cannot_be_read_open_on_time() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    spoilt(&world, &mesh, &[ODD, NEWER]).await?;
    in_time(async |round: u32| -> Result<Result<(), String>> {
        let event = create(&mut mesh.event(), request(&format!("good-{round}"), 2 * SECOND, HOUR)).await?;
        let late_us = late_us(&reaches(&mesh.event(), &event.event_id, EventState::Open).await)?;
        assert!(late_us >= 0, "{late_us} us");
        Ok(if late_us < 500_000 { Ok(()) } else { Err(format!("{late_us} us late")) })
    })
    .await?;
    mesh.stop().await
}

#[tokio::test]
async fn the_timers_of_others_are_armed() -> Result<()> {
    let world = world().await?;
    let mut mesh = replica(&world).await?;
    let url = world.event_redis_url().to_owned();
    let redis = Redis::connect(RedisConfig { url, key_prefix: world.redis_key_prefix() }).await?;
    spoilt(&world, &mesh, &[ODD]).await?;
    let good = create(&mut mesh.event(), request("good", HOUR, HOUR)).await?;
    mesh.kill_9(Service::Event)?;
    // Too far away for a timer when it was created.
    let open_time = Timestamp::now().plus(60 * SECOND);
    retime(&world.database(Service::Event).await?, &good.event_id, open_time, open_time.plus(HOUR)).await?;

    mesh.restart(Service::Event).await?;
    let id: EventId = good.event_id.parse()?;
    eventually("its timer is armed", || async { (timer::disarm(&redis, id).await.ok()? > 0).then_some(()) }).await;
    assert_eq!(get(&mut mesh.event(), &good.event_id).await?.state(), EventState::Scheduled);
    mesh.stop().await
}
