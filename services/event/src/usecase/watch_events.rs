//! Watches events until they end. One poll reads all that are watched.

use super::{Error, FindEvents};
use crate::domain::{Event, Refusal};
use futures_util::{Stream, stream};
use stampede_service::until_last;
use stampede_vocab::EventId;
use stampede_watch::Hub;
use std::time::Duration;

/// Time between two polls of the watched events.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Watches events. Cheap to clone.
#[derive(Clone)]
pub struct WatchEvents {
    find: FindEvents,
    hub: Hub<EventId, Event>,
}

impl WatchEvents {
    /// Watches the events that `find` reads. Needs a tokio runtime.
    pub fn new(find: FindEvents) -> Self {
        let watched = find.clone();
        let hub = Hub::new(POLL_INTERVAL, move |ids: Vec<EventId>| {
            let find = watched.clone();
            async move { Ok(find.find(&ids).await?) }
        });
        Self { find, hub }
    }

    /// Returns each event as it is now and after each change, until it has ended. Fails unless every id has an event.
    pub async fn run(&self, ids: Vec<EventId>) -> Result<impl Stream<Item = Event> + Send + use<>, Error> {
        let found = self.find.find(&ids).await?;
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
