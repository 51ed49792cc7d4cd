//! A Redis with little memory left.

use crate::sale::{create, refusal, request, world};
use anyhow::Result;
use stampede_status::Reason;
use stampede_testkit::{MeshBuilder, OwnRedis, Service, as_operator};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_new_event_waits_for_room_and_a_repeat_does_not() -> Result<()> {
    let redis = OwnRedis::start(&[("maxmemory", "50mb"), ("notify-keyspace-events", "Ex")]).await?;
    let settings = MeshBuilder::default().set(Service::Event, "STAMPEDE_REDIS_URL", redis.url());
    let mesh = settings.start(&world().await?, [Service::Event]).await?;
    let early = request("early", MINUTE, MINUTE);
    let created = create(&mut mesh.event(), early.clone()).await?;
    redis.fill(45).await?;

    let late = request("late", MINUTE, MINUTE);
    let refused = mesh.event().create_event(as_operator(late.clone())).await.expect_err("there is no room");
    assert_eq!(refusal(&refused).0, Reason::Overloaded);
    assert_eq!(create(&mut mesh.event(), early).await?.event_id, created.event_id);
    redis.empty().await?;
    create(&mut mesh.event(), late).await?;
    mesh.stop().await
}
