//! The RPC handlers: check the caller, convert the request, call the use case, convert the answer. They decide nothing.

use super::{convert, problem::watch_problem};
use crate::usecase::{CancelEvent, CreateEvent, FindEvents, RescheduleEvent, WatchEvents};
use futures_util::{Stream, StreamExt};
use stampede_chassis::Identity;
use stampede_proto::event::v1::{self as proto, event_service_server::EventService};
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// The use cases behind the RPCs.
pub struct EventRpc {
    pub create: CreateEvent,
    pub find: FindEvents,
    pub reschedule: RescheduleEvent,
    pub cancel: CancelEvent,
    pub watch: WatchEvents,
}

#[tonic::async_trait]
impl EventService for EventRpc {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchEventsResponse, Status>> + Send>>;

    async fn create_event(
        &self,
        request: Request<proto::CreateEventRequest>,
    ) -> Result<Response<proto::CreateEventResponse>, Status> {
        let operator = Identity::of(&request)?;
        operator.require_operator()?;
        let new = convert::new_event(operator.user()?, request.into_inner())?;
        let event = self.create.run(new).await?;
        Ok(Response::new(proto::CreateEventResponse { event: Some(convert::event(event)) }))
    }

    async fn get_event(
        &self,
        request: Request<proto::GetEventRequest>,
    ) -> Result<Response<proto::GetEventResponse>, Status> {
        let id = convert::event_id(&request.get_ref().event_id)?;
        let event = self.find.get(id).await?;
        Ok(Response::new(proto::GetEventResponse { event: Some(convert::event(event)) }))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let paging = convert::events(request.get_ref())?;
        Ok(Response::new(convert::page(self.find.list(paging).await?)))
    }

    async fn reschedule_event(
        &self,
        request: Request<proto::RescheduleEventRequest>,
    ) -> Result<Response<proto::RescheduleEventResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let request = request.into_inner();
        let id = convert::event_id(&request.event_id)?;
        let times = convert::times(request.open_time, request.close_time)?;
        let expected_version = convert::expected_version(request.expected_version)?;
        let event = self.reschedule.run(id, times, expected_version).await?;
        Ok(Response::new(proto::RescheduleEventResponse { event: Some(convert::event(event)) }))
    }

    async fn cancel_event(
        &self,
        request: Request<proto::CancelEventRequest>,
    ) -> Result<Response<proto::CancelEventResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let proto::CancelEventRequest { event_id, paid_orders } = request.get_ref();
        let id = convert::event_id(event_id)?;
        let event = self.cancel.run(id, convert::paid_orders(*paid_orders)?).await?;
        Ok(Response::new(proto::CancelEventResponse { event: Some(convert::event(event)) }))
    }

    async fn watch_events(
        &self,
        request: Request<proto::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let requested = &request.get_ref().event_ids;
        let ids = convert::watched_ids(requested)?;
        let events = self.watch.run(ids).await.map_err(|error| watch_problem(error, requested))?;
        let answers = events.map(|event| Ok(proto::WatchEventsResponse { event: Some(convert::event(event)) }));
        Ok(Response::new(Box::pin(answers)))
    }
}
