//! An order service that accepts every order and keeps only its buyer, so that a test sees the calls that the gateway
//! lets through.

use futures_util::{Stream, StreamExt, stream};
use stampede_chassis::{Grpc, Workers, identity::USER_METADATA, serve_on};
use stampede_proto::order::v1::{
    CancelOrderRequest, CancelOrderResponse, GetCancellationRequest, GetCancellationResponse, GetOrderRequest,
    GetOrderResponse, ListOrdersRequest, ListOrdersResponse, LookUpOrdersRequest, LookUpOrdersResponse, Order,
    OrderState, PayOrderRequest, PayOrderResponse, PlaceOrderRequest, PlaceOrderResponse, RefundOrderRequest,
    RefundOrderResponse, WatchOrderRequest, WatchOrderResponse,
    order_service_server::{OrderService, OrderServiceServer},
};
use stampede_status::{Problem, Reason};
use stampede_vocab::{OrderId, RequestId, Timestamp, UserId};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, service::Routes};

/// How late it answers if it is told to.
const LATE: Duration = Duration::from_millis(500);

/// Serves until the guard is dropped. Returns the URL.
pub async fn serve() -> (String, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Routes::new(OrderServiceServer::new(Orders::default()));
    let grpc =
        Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &["stampede.order.v1.OrderService"]).believing_everybody();
    let stop = CancellationToken::new();
    tokio::spawn(serve_on(listener, None, grpc, Workers::new(), stop.clone(), Duration::from_secs(1)));
    (url, stop.drop_guard())
}

/// The buyer of each order that was placed.
#[derive(Default)]
struct Orders(Mutex<HashMap<String, String>>);

fn order(order_id: String, state: OrderState) -> Option<Order> {
    Some(Order { order_id, state: state.into(), ..Order::default() })
}

/// Returns the deadline of an order of the event `pay-within-<seconds>`; other orders have none.
fn pay_deadline(event_id: &str) -> Option<prost_types::Timestamp> {
    let seconds = event_id.strip_prefix("pay-within-")?.parse().unwrap();
    let micros = Timestamp::now().plus(Duration::from_secs(seconds)).micros();
    Some(prost_types::Timestamp { seconds: micros / 1_000_000, nanos: 0 })
}

#[tonic::async_trait]
impl OrderService for Orders {
    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

    /// Refuses what is bought in the event `sold-out`. Answers [`LATE`] for the event `late`.
    async fn place_order(&self, request: Request<PlaceOrderRequest>) -> Result<Response<PlaceOrderResponse>, Status> {
        let user: UserId = request.metadata().get(USER_METADATA).unwrap().to_str().unwrap().parse().unwrap();
        let request = request.into_inner();
        if request.event_id == "sold-out" {
            return Err(Problem::new(Reason::SoldOut, "there is nothing left").into());
        }
        let order_id = OrderId::derive(user, &RequestId::parse(&request.request_id).unwrap());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order_id.to_string(), user.to_string());
        if request.event_id == "late" {
            sleep(LATE).await;
        }
        let order = order(order_id.to_string(), OrderState::AwaitingPayment);
        let order = order.map(|order| Order { pay_deadline: pay_deadline(&request.event_id), ..order });
        Ok(Response::new(PlaceOrderResponse { order }))
    }

    async fn pay_order(&self, request: Request<PayOrderRequest>) -> Result<Response<PayOrderResponse>, Status> {
        let order = order(request.into_inner().order_id, OrderState::Paying);
        Ok(Response::new(PayOrderResponse { order }))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let order_id = request.into_inner().order_id;
        let buyer = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&order_id).cloned();
        let order = order(order_id, OrderState::Cancelled);
        let order = order.map(|order| Order { user_id: buyer.unwrap_or_default(), ..order });
        Ok(Response::new(CancelOrderResponse { order }))
    }

    /// Sends the order once, and stays.
    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let order = order(request.into_inner().order_id, OrderState::AwaitingPayment);
        Ok(Response::new(stream::iter([Ok(WatchOrderResponse { order })]).chain(stream::pending()).boxed()))
    }

    async fn get_cancellation(
        &self,
        _: Request<GetCancellationRequest>,
    ) -> Result<Response<GetCancellationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<GetOrderResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_orders(&self, _: Request<ListOrdersRequest>) -> Result<Response<ListOrdersResponse>, Status> {
        Ok(Response::new(ListOrdersResponse::default()))
    }

    async fn refund_order(&self, _: Request<RefundOrderRequest>) -> Result<Response<RefundOrderResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn look_up_orders(&self, _: Request<LookUpOrdersRequest>) -> Result<Response<LookUpOrdersResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
