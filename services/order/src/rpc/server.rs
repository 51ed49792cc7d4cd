//! The RPC handlers: check the caller, convert the request, call the use case, convert the answer. They decide nothing.

use super::convert;
use crate::usecase::{ChangeOrder, EventCancellations, FindOrder, ListOrders, PlaceOrder, WatchOrder};
use futures_util::{Stream, StreamExt};
use stampede_chassis::Identity;
use stampede_proto::order::v1::{self as proto, order_service_server::OrderService};
use std::{pin::Pin, time::Duration};
use tonic::{Request, Response, Status};

/// The use cases behind the RPCs.
pub struct OrderRpc {
    pub place: PlaceOrder,
    /// Pays, cancels, refunds.
    pub change: ChangeOrder,
    pub find: FindOrder,
    pub list: ListOrders,
    pub watch: WatchOrder,
    /// Reports the progress of ending the orders of cancelled events.
    pub cancellations: EventCancellations,
    /// The time within which an order is written.
    pub write_limit: Duration,
}

#[tonic::async_trait]
impl OrderService for OrderRpc {
    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<proto::WatchOrderResponse, Status>> + Send>>;

    async fn place_order(
        &self,
        request: Request<proto::PlaceOrderRequest>,
    ) -> Result<Response<proto::PlaceOrderResponse>, Status> {
        let buyer = Identity::of(&request)?.user()?;
        let draft = convert::draft(buyer, request.get_ref())?;
        let order = self.place.run(draft).await?;
        Ok(Response::new(proto::PlaceOrderResponse { order: Some(convert::order(order)) }))
    }

    async fn get_order(
        &self,
        request: Request<proto::GetOrderRequest>,
    ) -> Result<Response<proto::GetOrderResponse>, Status> {
        let owner = Identity::of(&request)?.owner()?;
        let id = convert::order_id(&request.get_ref().order_id)?;
        let order = self.find.get(id, owner).await?;
        Ok(Response::new(proto::GetOrderResponse { order: Some(convert::order(order)) }))
    }

    async fn list_orders(
        &self,
        request: Request<proto::ListOrdersRequest>,
    ) -> Result<Response<proto::ListOrdersResponse>, Status> {
        let (listing, filter, paging) = convert::listing(&Identity::of(&request)?, request.get_ref())?;
        let page = self.list.run(listing, &filter, paging).await?;
        Ok(Response::new(convert::page(page)))
    }

    async fn pay_order(
        &self,
        request: Request<proto::PayOrderRequest>,
    ) -> Result<Response<proto::PayOrderResponse>, Status> {
        let buyer = Identity::of(&request)?.user()?;
        let (id, request_id, method) = convert::payment(request.into_inner())?;
        let order = self.change.pay(id, buyer, request_id, method).await?;
        Ok(Response::new(proto::PayOrderResponse { order: Some(convert::order(order)) }))
    }

    async fn cancel_order(
        &self,
        request: Request<proto::CancelOrderRequest>,
    ) -> Result<Response<proto::CancelOrderResponse>, Status> {
        let identity = Identity::of(&request)?;
        let (owner, by) = (identity.owner()?, identity.user()?);
        let proto::CancelOrderRequest { order_id, request_id } = request.get_ref();
        let (id, request_id) = convert::end(order_id, request_id)?;
        let order = self.change.cancel(id, owner, by, request_id).await?;
        Ok(Response::new(proto::CancelOrderResponse { order: Some(convert::order(order)) }))
    }

    async fn refund_order(
        &self,
        request: Request<proto::RefundOrderRequest>,
    ) -> Result<Response<proto::RefundOrderResponse>, Status> {
        let identity = Identity::of(&request)?;
        identity.require_operator()?;
        let operator = identity.user()?;
        let proto::RefundOrderRequest { order_id, request_id } = request.get_ref();
        let (id, request_id) = convert::end(order_id, request_id)?;
        let order = self.change.refund(id, operator, request_id).await?;
        Ok(Response::new(proto::RefundOrderResponse { order: Some(convert::order(order)) }))
    }

    async fn watch_order(
        &self,
        request: Request<proto::WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let owner = Identity::of(&request)?.owner()?;
        let id = convert::order_id(&request.get_ref().order_id)?;
        let orders = self.watch.run(id, owner).await?;
        let shown = orders.map(|order| Ok(proto::WatchOrderResponse { order: Some(convert::order(order)) }));
        Ok(Response::new(Box::pin(shown)))
    }

    async fn get_cancellation(
        &self,
        request: Request<proto::GetCancellationRequest>,
    ) -> Result<Response<proto::GetCancellationResponse>, Status> {
        Identity::of(&request)?.require_operator()?;
        let event = convert::event_id(&request.get_ref().event_id)?;
        let progress = self.cancellations.progress(event).await?;
        Ok(Response::new(proto::GetCancellationResponse { cancellation: Some(convert::cancellation(&progress)) }))
    }

    async fn look_up_orders(
        &self,
        request: Request<proto::LookUpOrdersRequest>,
    ) -> Result<Response<proto::LookUpOrdersResponse>, Status> {
        Identity::of(&request)?.require_service()?;
        let ids = convert::order_ids(request.get_ref())?;
        let found = self.find.statuses(&ids).await?;
        Ok(Response::new(convert::statuses(&found, self.write_limit)))
    }
}
