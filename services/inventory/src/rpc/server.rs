//! `stampede.inventory.v1.InventoryService`: reads the request, calls one usecase, writes the answer.

use crate::{
    rpc::{convert, outcomes::Outcomes},
    usecase::Inventory,
};
use futures_util::{Stream, StreamExt};
use stampede_chassis::Identity;
use stampede_proto::inventory::v1::{self as proto, inventory_service_server::InventoryService};
use std::pin::Pin;
use tonic::{Request, Response, Status};

/// The service behind its contract.
pub struct InventoryApi {
    inventory: Inventory,
    outcomes: Outcomes,
}

impl InventoryApi {
    /// Answers with this inventory.
    pub fn new(inventory: Inventory) -> Self {
        Self { inventory, outcomes: Outcomes::new() }
    }
}

#[tonic::async_trait]
impl InventoryService for InventoryApi {
    type WatchStockStream = Pin<Box<dyn Stream<Item = Result<proto::WatchStockResponse, Status>> + Send>>;

    async fn stage_stock(
        &self,
        request: Request<proto::StageStockRequest>,
    ) -> Result<Response<proto::StageStockResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let shelf = convert::shelf(request.into_inner()).map_err(convert::invalid)?;
        self.inventory.shelve(shelf).await.map_err(convert::problem)?;
        Ok(Response::new(proto::StageStockResponse {}))
    }

    async fn reserve(
        &self,
        request: Request<proto::ReserveRequest>,
    ) -> Result<Response<proto::ReserveResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let wanted = convert::reservations(request.into_inner()).map_err(convert::invalid)?;
        let reserved = self.inventory.reserve(wanted).await.map_err(convert::problem)?;
        let results: Vec<_> = reserved.into_iter().map(convert::result).collect();
        self.outcomes.count(&results);
        Ok(Response::new(proto::ReserveResponse { results }))
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let holds = convert::holds(request.into_inner()).map_err(convert::invalid)?;
        let released = self.inventory.release(&holds).await.map_err(convert::problem)?;
        let released = i32::try_from(released).expect("at most as many as one call may have");
        Ok(Response::new(proto::ReleaseResponse { released }))
    }

    async fn get_stock(
        &self,
        request: Request<proto::GetStockRequest>,
    ) -> Result<Response<proto::GetStockResponse>, Status> {
        let event_id = convert::event_id(&request.get_ref().event_id).map_err(convert::invalid)?;
        let view = self.inventory.view(event_id).await.map_err(convert::problem)?;
        Ok(Response::new(proto::GetStockResponse { stocks: convert::stocks(view) }))
    }

    async fn watch_stock(
        &self,
        request: Request<proto::WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        let event_id = convert::event_id(&request.get_ref().event_id).map_err(convert::invalid)?;
        let views = self.inventory.watch(event_id).await.map_err(convert::problem)?;
        let responses = views.map(|view| Ok(proto::WatchStockResponse { stocks: convert::stocks(view) }));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn reconcile(
        &self,
        request: Request<proto::ReconcileRequest>,
    ) -> Result<Response<proto::ReconcileResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let event_id = convert::event_id(&request.get_ref().event_id).map_err(convert::invalid)?;
        let drifts = self.inventory.reconcile(event_id).await.map_err(convert::problem)?;
        Ok(Response::new(proto::ReconcileResponse { drifts: drifts.into_iter().map(convert::drift).collect() }))
    }
}
