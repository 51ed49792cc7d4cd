//! WatchEvents: what is now, then each change, until nothing can change any more.

use crate::sale::{create, replica, request, retime, world};
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use stampede_proto::event::v1::{CancelEventRequest, EventState, WatchEventsRequest};
use stampede_testkit::{Service, as_operator};
use stampede_vocab::Timestamp;
use std::{collections::HashMap, time::Duration};

#[tokio::test]
async fn a_watch_shows_each_state_and_ends_with_the_last_event() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let (db, hour) = (world.database(Service::Event).await?, Duration::from_secs(3_600));
    let sale = create(&mut client, request("sale", hour, hour)).await?;
    let cancelled = create(&mut client, request("cancelled", hour, hour)).await?;
    let event_ids = vec![sale.event_id.clone(), cancelled.event_id.clone(), sale.event_id.clone()];

    let stream = client.watch_events(WatchEventsRequest { event_ids }).await?.into_inner();
    let mut seen: HashMap<String, Vec<EventState>> = HashMap::new();
    let mut opens_at = Timestamp::now();
    let mut events = stream.map(|answer| answer?.event.context("an event"));
    while let Some(event) = events.try_next().await? {
        let states = seen.entry(event.event_id.clone()).or_default();
        states.push(event.state());
        if event.event_id == cancelled.event_id && states.len() == 1 {
            let request = CancelEventRequest { event_id: event.event_id, paid_orders: 0 };
            client.cancel_event(as_operator(request)).await?;
            continue;
        }
        // Each step once the one before was seen: a watch shows states, and who is slow skips to the newest.
        match event.state() {
            EventState::Scheduled => {
                opens_at = Timestamp::now();
                retime(&db, &event.event_id, opens_at, opens_at.plus(hour)).await?;
            }
            EventState::Open => retime(&db, &event.event_id, opens_at, Timestamp::now()).await?,
            _ => {}
        }
    }
    assert_eq!(seen[&sale.event_id], [EventState::Scheduled, EventState::Open, EventState::Closed]);
    assert_eq!(seen[&cancelled.event_id], [EventState::Scheduled, EventState::Cancelled]);
    mesh.stop().await
}
