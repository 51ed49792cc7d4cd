//! Watches events until they end. One poll reads the versions of all watched events, and then the changed events.

use super::{Error, FindEvents};
use crate::domain::{Event, Refusal};
use futures_util::{Stream, stream};
use stampede_service::until_last;
use stampede_vocab::EventId;
use stampede_watch::Hub;
use std::{collections::HashMap, time::Duration};

/// Watches events. Cheap to clone.
#[derive(Clone)]
pub struct WatchEvents {
    find: FindEvents,
    hub: Hub<EventId, Event>,
}

impl WatchEvents {
    /// Watches the events that `find` reads, at this poll interval. Needs a tokio runtime.
    pub fn new(find: FindEvents, period: Duration) -> Self {
        let (version_reader, event_reader) = (find.clone(), find.clone());
        let versions = move |ids| versions(version_reader.clone(), ids);
        let load = move |ids| load(event_reader.clone(), ids);
        let hub = Hub::by_version(period, |event: &Event| event.schedule.version, versions, load);
        Self { find, hub }
    }

    /// Returns a stream of each event now and after each change, until it has ended. Fails unless every id has an
    /// event.
    pub async fn run(&self, ids: Vec<EventId>) -> Result<impl Stream<Item = Event> + Send + use<>, Error> {
        // Reads only the versions: for a crowd that begins to watch, the poll reads each event once.
        let found = self.find.versions(&ids).await?;
        if let Some(id) = ids.iter().find(|id| !found.contains_key(id)) {
            return Err(Refusal::NotFound(*id).into());
        }
        let watches = ids.into_iter().map(|id| {
            let events = until_last(Box::pin(self.hub.watch(id)), |event: &Event| event.schedule.state.is_final());
            Box::pin(events)
        });
        Ok(stream::select_all(watches.collect::<Vec<_>>()))
    }
}

async fn versions(find: FindEvents, ids: Vec<EventId>) -> anyhow::Result<HashMap<EventId, i64>> {
    Ok(find.versions(&ids).await?)
}

async fn load(find: FindEvents, ids: Vec<EventId>) -> anyhow::Result<HashMap<EventId, Event>> {
    Ok(find.find(&ids).await?)
}
