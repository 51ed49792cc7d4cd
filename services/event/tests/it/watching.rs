//! WatchEvents: what is now, then each change, until nothing can change any more.

use crate::sale::{create, replica, request, world};
use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use stampede_proto::event::v1::{CancelEventRequest, EventState, WatchEventsRequest};
use stampede_testkit::as_operator;
use std::{collections::HashMap, time::Duration};

#[tokio::test]
async fn a_watch_shows_each_state_and_ends_with_the_last_event() -> Result<()> {
    let world = world().await?;
    let mesh = replica(&world).await?;
    let mut client = mesh.event();
    let second = Duration::from_secs(1);
    let sale = create(&mut client, request("sale", second, second)).await?;
    let cancelled = create(&mut client, request("cancelled", second * 60, second)).await?;
    let event_ids = vec![sale.event_id.clone(), cancelled.event_id.clone(), sale.event_id.clone()];

    let stream = client.watch_events(WatchEventsRequest { event_ids }).await?.into_inner();
    let mut seen: HashMap<String, Vec<EventState>> = HashMap::new();
    let mut events = stream.map(|answer| answer?.event.context("an event"));
    while let Some(event) = events.try_next().await? {
        let states = seen.entry(event.event_id.clone()).or_default();
        states.push(event.state());
        if event.event_id == cancelled.event_id && states.len() == 1 {
            let request = CancelEventRequest { event_id: event.event_id, paid_orders: 0 };
            client.cancel_event(as_operator(request)).await?;
        }
    }
    assert_eq!(seen[&sale.event_id], [EventState::Scheduled, EventState::Open, EventState::Closed]);
    assert_eq!(seen[&cancelled.event_id], [EventState::Scheduled, EventState::Cancelled]);
    mesh.stop().await
}
