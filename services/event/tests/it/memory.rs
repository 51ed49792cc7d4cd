//! A Redis of timers with little memory left.

use crate::sale::{create, reaches, request, world};
use anyhow::Result;
use stampede_proto::event::v1::EventState;
use stampede_testkit::{MeshBuilder, OwnRedis, Service};
use std::time::Duration;

#[tokio::test]
async fn an_event_is_created_and_opens_whatever_room_the_redis_of_its_timers_has() -> Result<()> {
    let redis = OwnRedis::start(&[("maxmemory", "50mb"), ("notify-keyspace-events", "Ex")]).await?;
    let settings = MeshBuilder::default().set(Service::Event, "STAMPEDE_REDIS_URL", redis.url());
    let mesh = settings.start(&world().await?, [Service::Event]).await?;
    redis.fill(45).await?;

    let event = create(&mut mesh.event(), request("late", Duration::from_secs(1), Duration::from_secs(60))).await?;
    reaches(&mesh.event(), &event.event_id, EventState::Open).await;
    mesh.stop().await
}
