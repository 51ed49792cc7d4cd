//! Services whose answers depend on the request, served as a process would serve them: so that a test sees the requests
//! that the gateway sends, and can break a stream where it wants.

use crate::grpc::framed;
use axum::{Router, extract, routing::any};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::ready, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use prost::Message;
use stampede_chassis::{Grpc, Workers, serve_on};
use stampede_lua::gate::UserId;
use stampede_proto::{
    event::v1::{
        CancelEventRequest, CancelEventResponse, CreateEventRequest, CreateEventResponse, Event, GetEventRequest,
        GetEventResponse, Gift, Item, ListEventsRequest, ListEventsResponse, RescheduleEventRequest,
        RescheduleEventResponse, WatchEventsRequest, WatchEventsResponse,
        event_service_server::{EventService, EventServiceServer},
    },
    payment::v1::{
        GetPaymentRequest, GetPaymentResponse, HandleWebhookRequest, HandleWebhookResponse, ListPaymentsRequest,
        ListPaymentsResponse, Payment,
        payment_service_server::{PaymentService, PaymentServiceServer},
    },
};
use stampede_status::{Problem, Reason};
use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, body::Body, service::Routes};

/// Path of the only call of the order service that is answered here.
const WATCH_ORDER: &str = "/stampede.order.v1.OrderService/WatchOrder";

/// Serves them until the guard is dropped. Returns the URL.
pub async fn serve() -> (String, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let orders = Router::new().route(WATCH_ORDER, any(watch_order));
    let routes = Routes::from(orders)
        .add_service(PaymentServiceServer::new(Payments))
        .add_service(EventServiceServer::new(Events::default()));
    let grpc = Grpc::new(routes, stampede_proto::DESCRIPTOR_SET, &["stampede.payment.v1.PaymentService"])
        .believing_everybody();
    let stop = CancellationToken::new();
    tokio::spawn(serve_on(listener, None, grpc, Workers::new(), stop.clone(), Duration::from_secs(1)));
    (url, stop.drop_guard())
}

/// Refuses to show an order, and names the caller.
async fn watch_order(request: extract::Request) -> http::Response<Body> {
    let user = request.headers().get("x-stampede-user").and_then(|user| user.to_str().ok()).unwrap_or("nobody");
    Status::from(Problem::new(Reason::OrderNotFound, user)).into_http()
}

/// Serves every method that has a route with an empty resource, until the guard is dropped. Returns the URL.
pub async fn serve_anything() -> (String, DropGuard) {
    serve_router(Router::new().fallback(empty_resource)).await
}

/// Serves these routes as a service, until the guard is dropped. Returns the URL.
pub async fn serve_router(router: Router) -> (String, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let grpc = Grpc::new(Routes::from(router), &[], &[]).believing_everybody();
    let stop = CancellationToken::new();
    tokio::spawn(serve_on(listener, None, grpc, Workers::new(), stop.clone(), Duration::from_secs(1)));
    (url, stop.drop_guard())
}

/// Returns a message whose field 1 is an empty message, since that is where every answer has its resource.
async fn empty_resource() -> http::Response<axum::body::Body> {
    answer(&ListEventsResponse { events: vec![Event::default()], ..ListEventsResponse::default() })
}

/// Returns an answer of the gRPC protocol, byte by byte: a message, and the status OK.
pub fn answer(message: &impl Message) -> http::Response<axum::body::Body> {
    let went_well = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let message = Full::new(Bytes::from(framed(message))).with_trailers(ready(Some(Ok(went_well))));
    let response = http::Response::builder().header("content-type", "application/grpc");
    response.body(axum::body::Body::new(message)).unwrap()
}

struct Payments;

fn all_metadata<T>(request: &Request<T>) -> String {
    let mut pairs: Vec<_> = request
        .metadata()
        .clone()
        .into_headers()
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?")))
        .collect();
    pairs.sort();
    pairs.join(";")
}

#[tonic::async_trait]
impl PaymentService for Payments {
    /// Answers with the request: the id as it came, and all metadata in place of the order.
    async fn get_payment(&self, request: Request<GetPaymentRequest>) -> Result<Response<GetPaymentResponse>, Status> {
        let order_id = all_metadata(&request);
        let payment = Payment { payment_id: request.into_inner().payment_id, order_id, ..Payment::default() };
        Ok(Response::new(GetPaymentResponse { payment: Some(payment) }))
    }

    /// Fails as the page token says.
    async fn list_payments(
        &self,
        request: Request<ListPaymentsRequest>,
    ) -> Result<Response<ListPaymentsResponse>, Status> {
        match request.into_inner().page_token.as_str() {
            "slow" => std::future::pending().await,
            "panic" => panic!("asked to"),
            "foreign" => Err(Status::internal("SELECT secret FROM ledger")),
            name => {
                let reason = Reason::parse(name).ok_or_else(|| Status::unknown(name.to_owned()))?;
                Err(Problem::new(reason, "as asked").field("lines[1]").meta("left", 3).internal("a secret").into())
            }
        }
    }

    async fn handle_webhook(
        &self,
        request: Request<HandleWebhookRequest>,
    ) -> Result<Response<HandleWebhookResponse>, Status> {
        Err(Problem::new(Reason::InvalidSignature, all_metadata(&request)).into())
    }
}

#[derive(Default)]
struct Events {
    /// Streams that were opened.
    watched: AtomicUsize,
}

fn largest_item() -> Item {
    let title = "\u{1d11e}".repeat(200);
    Item {
        item_id: "itm_1".into(),
        title: title.clone(),
        gift: Some(Gift { title, total_units: 1 }),
        ..Item::default()
    }
}

fn event(event_id: &str) -> Result<WatchEventsResponse, Status> {
    let event = Event { event_id: event_id.to_owned(), name: "line\nbreak".into(), ..Event::default() };
    Ok(WatchEventsResponse { event: Some(event) })
}

/// Returns an event of 64 KiB, with an id of its own, so that none replaces another.
fn large() -> Result<WatchEventsResponse, Status> {
    let event_id = format!("evt_{}", UserId::random());
    Ok(WatchEventsResponse { event: Some(Event { event_id, name: "x".repeat(64 * 1024), ..Event::default() }) })
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

    /// Sends two events, then goes on as the first id says. "count" gets an event whose id is the number of the stream.
    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let ids = request.into_inner().event_ids;
        let begin = stream::iter([event("evt_1"), event("evt_2")]);
        let broken =
            || Err(Problem::new(Reason::Unavailable, "the ledger is not available").internal("a secret").into());
        Ok(Response::new(match ids.first().map(String::as_str) {
            Some("break") => begin.chain(stream::iter([broken()])).boxed(),
            // Two MiB, far more than one stream may have unread.
            Some("flood") => stream::iter((0..32).map(|_| large())).chain(stream::pending()).boxed(),
            Some("stay") => begin.chain(stream::pending()).boxed(),
            Some("end") => begin.boxed(),
            Some("count") => {
                let number = self.watched.fetch_add(1, Ordering::Relaxed) + 1;
                stream::iter([event(&format!("evt_{number}"))]).chain(stream::pending()).boxed()
            }
            _ => {
                return Err(Problem::new(Reason::EventNotFound, "there is no such event").field("event_ids[0]").into());
            }
        }))
    }

    /// Answers with the request id in place of the name.
    async fn create_event(
        &self,
        request: Request<CreateEventRequest>,
    ) -> Result<Response<CreateEventResponse>, Status> {
        let event = Event { name: request.into_inner().request_id, ..Event::default() };
        Ok(Response::new(CreateEventResponse { event: Some(event) }))
    }

    async fn get_event(&self, _: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Answers with as many events as are requested, each as large as one may be; one of 64 KiB for the page "large".
    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let request = request.into_inner();
        let events = if request.page_token == "large" {
            large()?.event.into_iter().collect()
        } else {
            let event = Event { event_id: "evt_1".into(), items: vec![largest_item(); 100], ..Event::default() };
            vec![event; usize::try_from(request.page_size).unwrap()]
        };
        Ok(Response::new(ListEventsResponse { events, ..ListEventsResponse::default() }))
    }

    async fn reschedule_event(
        &self,
        _: Request<RescheduleEventRequest>,
    ) -> Result<Response<RescheduleEventResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_event(&self, _: Request<CancelEventRequest>) -> Result<Response<CancelEventResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
