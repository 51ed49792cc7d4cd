//! The RPC handlers: check the caller, convert the request, call the use case, convert the answer. They decide nothing.

use super::{convert, outcomes::Outcomes};
use crate::usecase::{Error, Reconcile, ReleaseReservations, ReserveUnits, StageStock, ViewStock};
use futures_util::{Stream, StreamExt};
use stampede_chassis::Identity;
use stampede_proto::inventory::v1::{self as proto, inventory_service_server::InventoryService};
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// The use cases behind the RPCs.
pub struct InventoryRpc {
    pub stage: StageStock,
    pub reserve: ReserveUnits,
    pub release: ReleaseReservations,
    pub view: ViewStock,
    pub reconcile: Reconcile,
    pub outcomes: Outcomes,
}

#[tonic::async_trait]
impl InventoryService for InventoryRpc {
    type WatchStockStream = Pin<Box<dyn Stream<Item = Result<proto::WatchStockResponse, Status>> + Send>>;

    async fn stage_stock(
        &self,
        request: Request<proto::StageStockRequest>,
    ) -> Result<Response<proto::StageStockResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let shelf = convert::shelf(request.into_inner())?;
        self.stage.run(shelf).await?;
        Ok(Response::new(proto::StageStockResponse {}))
    }

    async fn reserve(
        &self,
        request: Request<proto::ReserveRequest>,
    ) -> Result<Response<proto::ReserveResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let wanted = convert::reservations(request.into_inner())?;
        let reserved = self.reserve.run(wanted).await?;
        let results: Vec<_> = reserved.into_iter().map(convert::result).collect();
        self.outcomes.count(&results);
        Ok(Response::new(proto::ReserveResponse { results }))
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let reservations = convert::reservation_refs(request.get_ref())?;
        let released = self.release.run(reservations).await.map_err(Error::from)?;
        let released = i32::try_from(released).expect("at most as many as one call may have");
        Ok(Response::new(proto::ReleaseResponse { released }))
    }

    async fn get_stock(
        &self,
        request: Request<proto::GetStockRequest>,
    ) -> Result<Response<proto::GetStockResponse>, Status> {
        let event_id = convert::event_id(&request.get_ref().event_id)?;
        let view = self.view.run(event_id).await?;
        Ok(Response::new(proto::GetStockResponse { stocks: convert::stocks(view) }))
    }

    async fn watch_stock(
        &self,
        request: Request<proto::WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        let event_id = convert::event_id(&request.get_ref().event_id)?;
        let views = self.view.watch(event_id).await?;
        let responses = views.map(|view| Ok(proto::WatchStockResponse { stocks: convert::stocks(view) }));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn reconcile(
        &self,
        request: Request<proto::ReconcileRequest>,
    ) -> Result<Response<proto::ReconcileResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let event_id = convert::event_id(&request.get_ref().event_id)?;
        let drifts = self.reconcile.run(event_id).await?;
        Ok(Response::new(proto::ReconcileResponse { drifts: drifts.into_iter().map(convert::drift).collect() }))
    }
}
