//! `stampede.event.v1.EventService`: reads the request, calls one usecase, writes the answer.

use crate::{domain::Event, rpc::convert, usecase::Events};
use futures_util::{Stream, StreamExt, stream};
use stampede_chassis::Identity;
use stampede_proto::event::v1::{self as proto, event_service_server::EventService};
use stampede_vocab::{EventId, PageSize};
use stampede_watch::Hub;
use std::{pin::Pin, time::Duration};
use tonic::{Request, Response, Status};

/// How often a watched event is read.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

type Watch = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// The service behind its contract.
pub struct EventApi {
    events: Events,
    hub: Hub<EventId, Event>,
}

impl EventApi {
    /// Answers with these events. Needs a runtime, since it starts the poll behind WatchEvents.
    pub fn new(events: Events) -> Self {
        let watched = events.clone();
        let hub = Hub::new(WATCH_PERIOD, move |ids: Vec<EventId>| {
            let events = watched.clone();
            async move { Ok(events.load(&ids).await?) }
        });
        Self { events, hub }
    }
}

#[tonic::async_trait]
impl EventService for EventApi {
    async fn create_event(
        &self,
        request: Request<proto::CreateEventRequest>,
    ) -> Result<Response<proto::CreateEventResponse>, Status> {
        let operator = Identity::of(&request)?;
        operator.require_operator()?;
        let caller = convert::caller(&operator)?;
        let new = convert::new_event(caller, request.into_inner()).map_err(convert::invalid)?;
        let event = self.events.create(new).await.map_err(convert::problem)?;
        Ok(Response::new(proto::CreateEventResponse { event: Some(convert::event(event)) }))
    }

    async fn get_event(
        &self,
        request: Request<proto::GetEventRequest>,
    ) -> Result<Response<proto::GetEventResponse>, Status> {
        let id = convert::event_id(&request.get_ref().event_id).map_err(convert::invalid)?;
        let event = self.events.get(id).await.map_err(convert::problem)?;
        Ok(Response::new(proto::GetEventResponse { event: Some(convert::event(event)) }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let size = PageSize::parse(request.page_size).map_err(convert::invalid)?;
        let after = convert::page_token(&request.page_token)?;
        let page = self.events.list(after, size).await.map_err(convert::problem)?;
        Ok(Response::new(convert::page(page)))
    }

    async fn reschedule_event(
        &self,
        request: Request<proto::RescheduleEventRequest>,
    ) -> Result<Response<proto::RescheduleEventResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let request = request.into_inner();
        let id = convert::event_id(&request.event_id).map_err(convert::invalid)?;
        let times = convert::times(request.opens_at, request.closes_at).map_err(convert::invalid)?;
        let event = self.events.reschedule(id, times).await.map_err(convert::problem)?;
        Ok(Response::new(proto::RescheduleEventResponse { event: Some(convert::event(event)) }))
    }

    async fn cancel_event(
        &self,
        request: Request<proto::CancelEventRequest>,
    ) -> Result<Response<proto::CancelEventResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let id = convert::event_id(&request.get_ref().event_id).map_err(convert::invalid)?;
        let event = self.events.cancel(id).await.map_err(convert::problem)?;
        Ok(Response::new(proto::CancelEventResponse { event: Some(convert::event(event)) }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<proto::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let asked = &request.get_ref().event_ids;
        let ids = convert::watched_ids(asked).map_err(convert::invalid)?;
        self.events.require(&ids).await.map_err(|error| convert::watch_problem(error, asked))?;
        let watches = ids.into_iter().map(|id| until_final(Box::pin(self.hub.watch(id))));
        let events = stream::select_all(watches);
        let answers = events.map(|event| Ok(proto::WatchEventsResponse { event: Some(convert::event(event)) }));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The values of one watched event up to the first after which nothing can follow.
fn until_final(watch: Watch) -> Watch {
    Box::pin(stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        let event = watch.next().await?;
        let rest = (!event.schedule.state.is_final()).then_some(watch);
        Some((event, rest))
    }))
}
