//! Calls in gRPC at the gateway's port: what a generated client sends, gets, and may not do.

use crate::{
    front::{Front, good_token, request as http_request, with},
    orders, raw, services,
};
use axum::{Router, body::Body};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use prost::Message;
use stampede_proto::{
    event::v1::{CreateEventRequest, WatchEventsRequest, event_service_client::EventServiceClient},
    order::v1::{CancelOrderRequest, GetOrderRequest, order_service_client::OrderServiceClient},
    payment::v1::{
        GetPaymentRequest, GetPaymentResponse, ListPaymentsRequest, payment_service_client::PaymentServiceClient,
    },
};
use stampede_status::{Problem, Reason};
use std::io::Write;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::DropGuard;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

pub const GET_PAYMENT: &str = "/stampede.payment.v1.PaymentService/GetPayment";
pub const LIST_PAYMENTS: &str = "/stampede.payment.v1.PaymentService/ListPayments";
pub const WATCH_EVENTS: &str = "/stampede.event.v1.EventService/WatchEvents";
/// A gateway with this flag waits for a service for longer than a test waits for anything ([`raw::MAX_WAIT`]).
pub const WAITS_LONGER: (&str, &str) = ("--request-timeout-ms", "60000");
/// One with this flag does not wait long for a service that is slow.
pub const WAITS_LESS: (&str, &str) = ("--request-timeout-ms", "700");
const GRPC: &str = "application/grpc";

/// The answer to a call.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Reply {
    /// Returns the status of gRPC: in the trailers, or in the head where there is no message.
    fn grpc_status(&self) -> Status {
        let status = Status::from_header_map(&self.trailers).or_else(|| Status::from_header_map(&self.headers));
        status.unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    fn reason(&self) -> Reason {
        assert_eq!(self.status, 200, "the status is in the trailers");
        assert_eq!(self.headers[header::CONTENT_TYPE], GRPC);
        assert_eq!(self.headers["x-trace-id"].len(), 32);
        Problem::from_status(&self.grpc_status()).reason()
    }
}

/// Starts a gateway before the services of the tests.
pub async fn front(flags: &[(&str, &str)]) -> (Front, DropGuard) {
    let (url, guard) = services::serve().await;
    let urls = [("--event-urls", url.as_str()), ("--payment-urls", url.as_str())];
    let flags: Vec<_> = urls.into_iter().chain(flags.iter().copied()).collect();
    (Front::start(&flags).await, guard)
}

/// Returns a call; without a header for an empty token.
pub fn call(path: &str, content_type: &str, token: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = http_request("POST", path, token, "");
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    request.map(|_| body.into())
}

/// Returns the frame of a message.
pub fn framed(message: &impl Message) -> Vec<u8> {
    frame(0, &message.encode_to_vec())
}

fn frame(flags: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[flags][..], &length, content].concat()
}

pub async fn send(front: &Front, request: Request<Body>) -> Reply {
    let (head, body) = front.open(request).await.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Reply { status: head.status, headers: head.headers, body: body.to_bytes(), trailers }
}

pub fn get_payment() -> GetPaymentRequest {
    GetPaymentRequest { payment_id: "pay_1".into() }
}

/// Returns the request at which the service of the tests does this.
pub fn list_payments(what: &str) -> ListPaymentsRequest {
    ListPaymentsRequest { page_token: what.into(), ..ListPaymentsRequest::default() }
}

async fn channel(door: &raw::Door) -> Channel {
    Endpoint::from_shared(format!("http://{}", door.address)).unwrap().connect().await.unwrap()
}

/// Returns a request of a generated client, with a token.
fn with_token<T>(message: T, role: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token = format!("Bearer {}", good_token(role));
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    request
}

#[tokio::test]
async fn a_generated_client_is_known_by_its_token_and_by_nothing_that_it_says() {
    let door = raw::Door::open(&[]).await;
    let mut payments = PaymentServiceClient::new(channel(&door).await);
    let mut request = with_token(get_payment(), "buyer");
    for (name, value) in [("x-stampede-user", "usr_somebody"), ("x-stampede-role", "service"), ("cookie", "a=b")] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let payment = payments.get_payment(request).await.unwrap().into_inner().payment.unwrap();
    assert_eq!(payment.payment_id, "pay_1");
    // The service answers with the metadata that it saw.
    let seen: Vec<_> = payment.order_id.split(';').collect();
    assert!(seen.contains(&"x-stampede-role=buyer"), "{seen:?}");
    assert!(seen.contains(&"x-stampede-user=usr_0000000000000000000000001a"), "{seen:?}");
    assert!(!seen.iter().any(|pair| pair.starts_with("authorization") || pair.starts_with("cookie")), "{seen:?}");
}

#[tokio::test]
async fn a_generated_client_reads_a_stream_to_its_end_or_to_its_failure() {
    let door = raw::Door::open(&[]).await;
    let mut events = EventServiceClient::new(channel(&door).await);
    for (id, expected) in [("end", None), ("break", Some(Reason::Unavailable))] {
        let request = WatchEventsRequest { event_ids: vec![id.into()] };
        let mut stream = events.watch_events(request).await.unwrap().into_inner();
        for event_id in ["evt_1", "evt_2"] {
            assert_eq!(stream.message().await.unwrap().unwrap().event.unwrap().event_id, event_id);
        }
        match expected {
            None => assert_eq!(stream.message().await.unwrap(), None),
            Some(reason) => {
                let status = stream.message().await.unwrap_err();
                assert_eq!(Problem::from_status(&status).reason(), reason);
                assert!(!status.message().contains("secret"), "{status}");
            }
        }
    }
    let none = events.watch_events(WatchEventsRequest { event_ids: vec!["none".into()] }).await.unwrap_err();
    let problem = Problem::from_status(&none);
    assert_eq!((problem.reason(), problem.field_path()), (Reason::EventNotFound, Some("event_ids[0]")));
}

/// Sends a note when it is dropped.
struct NotesDrop(mpsc::UnboundedSender<&'static str>);

impl Drop for NotesDrop {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_ends_at_the_service() {
    let (sender, mut notes) = mpsc::unbounded_channel();
    let never = Router::new().fallback(move || {
        let notes = NotesDrop(sender.clone());
        async move {
            notes.0.send("begun").unwrap();
            std::future::pending::<StatusCode>().await
        }
    });
    let (url, _guard) = services::serve_router(never).await;
    let door = raw::Door::open(&[("--order-urls", &url), WAITS_LONGER]).await;
    let mut orders = OrderServiceClient::new(channel(&door).await);
    let request = with_token(GetOrderRequest { order_id: "ord_1".into() }, "buyer");
    let calling = tokio::spawn(async move { orders.get_order(request).await });
    let next = timeout(raw::MAX_WAIT, notes.recv());
    assert_eq!(next.await.unwrap(), Some("begun"));
    calling.abort();
    let next = timeout(raw::MAX_WAIT, notes.recv());
    assert_eq!(next.await.expect("the gateway itself would wait"), Some("dropped"));
}

#[tokio::test]
async fn an_answer_has_its_message_and_ok_in_the_trailers() {
    let (front, _guard) = front(&[]).await;
    let reply =
        send(&front, call(GET_PAYMENT, "application/grpc+proto", &good_token("buyer"), framed(&get_payment()))).await;
    assert_eq!((reply.status.as_u16(), reply.grpc_status().code()), (200, Code::Ok));
    assert!(reply.trailers.contains_key("grpc-status"));
    let payment = GetPaymentResponse::decode(reply.body.slice(5..)).unwrap().payment.unwrap();
    assert_eq!(payment.payment_id, "pay_1");
    assert_eq!(reply.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn failures_keep_their_details_and_lose_their_internals() {
    let (patient, _guard) = front(&[WAITS_LONGER]).await;
    let (hasty, _other_guard) = front(&[WAITS_LESS]).await;
    for (what, code, reason) in [
        ("SOLD_OUT", Code::FailedPrecondition, Reason::SoldOut),
        ("NOT_READY", Code::Unavailable, Reason::NotReady),
        ("UNAUTHENTICATED", Code::Unavailable, Reason::Unavailable),
        ("foreign", Code::Internal, Reason::Internal),
        ("panic", Code::Internal, Reason::Internal),
        ("slow", Code::DeadlineExceeded, Reason::DeadlineExceeded),
    ] {
        let request = call(LIST_PAYMENTS, GRPC, &good_token("buyer"), framed(&list_payments(what)));
        let reply = send(if what == "slow" { &hasty } else { &patient }, request).await;
        let status = reply.grpc_status();
        assert_eq!((status.code(), reply.reason()), (code, reason), "{what}");
        assert!(!status.message().contains("secret"), "{status}");
        let problem = Problem::from_status(&status);
        if reason == Reason::SoldOut {
            assert_eq!((problem.field_path(), problem.metadata()["left"].as_str()), (Some("lines[1]"), "3"));
        }
        let says_when = matches!(reason, Reason::NotReady | Reason::Unavailable);
        assert_eq!(problem.retry_delay().is_some(), says_when, "{what}");
    }
}

#[tokio::test]
async fn a_caller_who_waits_less_is_answered_sooner() {
    let (front, _guard) = front(&[WAITS_LONGER]).await;
    let slow = call(LIST_PAYMENTS, GRPC, &good_token("buyer"), framed(&list_payments("slow")));
    let reply = timeout(raw::MAX_WAIT, send(&front, with(slow, &[("grpc-timeout", "100m")]))).await;
    assert_eq!(reply.expect("the gateway itself would wait").reason(), Reason::DeadlineExceeded);
    let stay = framed(&WatchEventsRequest { event_ids: vec!["stay".into()] });
    let stream = send(&front, with(call(WATCH_EVENTS, GRPC, "", stay), &[("grpc-timeout", "900m")]));
    let reply = timeout(raw::MAX_WAIT, stream).await.expect("a stream ends with the deadline of its caller");
    assert_eq!(reply.reason(), Reason::DeadlineExceeded);
}

#[tokio::test]
async fn who_may_not_call_a_method_is_refused_and_an_internal_one_does_not_exist() {
    let (front, _guard) = front(&[]).await;
    let create = framed(&CreateEventRequest::default());
    const CREATE: &str = "/stampede.event.v1.EventService/CreateEvent";
    for (path, token, reason) in [
        (GET_PAYMENT, String::new(), Reason::Unauthenticated),
        (GET_PAYMENT, "nonsense".to_owned(), Reason::Unauthenticated),
        (CREATE, good_token("buyer"), Reason::PermissionDenied),
        ("/stampede.order.v1.OrderService/LookUpOrders", good_token("operator"), Reason::MethodNotAllowed),
        ("/stampede.inventory.v1.InventoryService/Reserve", good_token("operator"), Reason::MethodNotAllowed),
        ("/no.such.Service/AtAll", good_token("operator"), Reason::MethodNotAllowed),
    ] {
        let reply = send(&front, call(path, GRPC, &token, create.clone())).await;
        assert_eq!(reply.reason(), reason, "{path}");
        if reason == Reason::MethodNotAllowed {
            let status = reply.grpc_status();
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, "there is no such method"), "{path}");
        }
    }
    let reply = send(&front, call(CREATE, GRPC, &good_token("operator"), create)).await;
    assert_eq!(reply.grpc_status().code(), Code::Ok);
}

#[tokio::test]
async fn a_body_that_no_protocol_has_is_refused_by_naming_those_that_are_read() {
    let (front, _guard) = front(&[]).await;
    let token = good_token("buyer");
    for (path, media_type, version, is_taken) in [
        (GET_PAYMENT, "application/grpc+json", Version::HTTP_2, "application/grpc,"),
        (GET_PAYMENT, "application/connect+proto", Version::HTTP_11, "application/proto"),
        (GET_PAYMENT, "text/plain", Version::HTTP_11, "application/json"),
        (WATCH_EVENTS, "application/connect+json", Version::HTTP_2, "application/grpc-web"),
        ("/grpc.health.v1.Health/Check", "application/grpc+json", Version::HTTP_2, "application/grpc,"),
    ] {
        let mut request = call(path, media_type, &token, framed(&get_payment()));
        *request.version_mut() = version;
        let reply = send(&front, request).await;
        assert_eq!(reply.status, 415, "{path} {media_type}");
        let taken = reply.headers["accept-post"].to_str().unwrap();
        assert!(taken.contains(is_taken), "{path} {media_type}: {taken}");
        assert_eq!(taken.contains("application/grpc,"), version == Version::HTTP_2, "{path} {media_type}: {taken}");
        assert_eq!(taken.contains("application/proto"), path == GET_PAYMENT, "{path} {media_type}: {taken}");
    }
    let internal = call("/stampede.order.v1.OrderService/LookUpOrders", "application/grpc+json", &token, "");
    assert_eq!(send(&front, internal).await.status, 404);
}

#[tokio::test]
async fn acts_are_limited_as_over_http() {
    let (url, _guard) = orders::serve().await;
    let front = Front::start(&[("--order-urls", &url)]).await;
    let cancel = framed(&CancelOrderRequest { order_id: "ord_1".into(), ..CancelOrderRequest::default() });
    const CANCEL: &str = "/stampede.order.v1.OrderService/CancelOrder";
    for _ in 0..10 {
        let reply = send(&front, call(CANCEL, GRPC, &good_token("buyer"), cancel.clone())).await;
        assert_eq!(reply.grpc_status().code(), Code::Ok);
    }
    let reply = send(&front, call(CANCEL, GRPC, &good_token("buyer"), cancel.clone())).await;
    assert_eq!(reply.reason(), Reason::Throttled);
    let problem = Problem::from_status(&reply.grpc_status());
    assert_eq!((problem.metadata()["act"].as_str(), problem.metadata()["by"].as_str()), ("cancel", "token"));
    assert!(problem.retry_delay().is_some());
    for _ in 0..11 {
        let reply = send(&front, call(CANCEL, GRPC, &good_token("operator"), cancel.clone())).await;
        assert_eq!(reply.grpc_status().code(), Code::Ok, "an operator cancels as many as it takes");
    }
}

#[tokio::test]
async fn streams_and_bodies_have_the_bounds_that_they_have_over_http() {
    let (front, _guard) = front(&[("--max-streams", "1"), ("--body-limit-bytes", "1000")]).await;
    let watch = |id: &str| call(WATCH_EVENTS, GRPC, "", framed(&WatchEventsRequest { event_ids: vec![id.into()] }));
    let open = front.open(watch("stay")).await;
    assert_eq!(send(&front, watch("end")).await.reason(), Reason::Overloaded);
    drop(open);
    assert_eq!(send(&front, watch("end")).await.grpc_status().code(), Code::Ok);
    let large = framed(&list_payments(&"x".repeat(2_000)));
    assert_eq!(
        send(&front, call(LIST_PAYMENTS, GRPC, &good_token("buyer"), large)).await.reason(),
        Reason::BodyTooLarge
    );
}

#[tokio::test]
async fn a_compressed_request_is_read_or_refused_by_naming_what_is_read() {
    let (front, _guard) = front(&[]).await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&get_payment().encode_to_vec()).unwrap();
    let body = frame(1, &gzip.finish().unwrap());
    let request =
        |encoding| with(call(GET_PAYMENT, GRPC, &good_token("buyer"), body.clone()), &[("grpc-encoding", encoding)]);
    let reply = send(&front, request("gzip")).await;
    assert_eq!(reply.grpc_status().code(), Code::Ok);
    assert_eq!(GetPaymentResponse::decode(reply.body.slice(5..)).unwrap().payment.unwrap().payment_id, "pay_1");
    let refused = send(&front, request("br")).await;
    assert_eq!((refused.reason(), refused.grpc_status().code()), (Reason::NotImplemented, Code::Unimplemented));
    assert_eq!(refused.headers["grpc-accept-encoding"], "identity,gzip");
}

#[tokio::test]
async fn what_is_no_message_is_the_fault_of_the_caller() {
    let (front, _guard) = front(&[]).await;
    let token = good_token("buyer");
    for body in [Vec::new(), vec![0, 0, 0, 0, 9, 1], [framed(&get_payment()), framed(&get_payment())].concat()] {
        assert_eq!(send(&front, call(GET_PAYMENT, GRPC, &token, body)).await.reason(), Reason::MalformedMessage);
    }
    // The messages of this method are read here, for its limits.
    let cancel = call("/stampede.order.v1.OrderService/CancelOrder", GRPC, &token, frame(0, &[0xff, 0xff]));
    assert_eq!(send(&front, cancel).await.reason(), Reason::MalformedMessage);
}

#[tokio::test]
async fn a_gateway_that_leaves_ends_its_streams_as_unavailable() {
    let (front, _guard) = front(&[]).await;
    let stay = framed(&WatchEventsRequest { event_ids: vec!["stay".into()] });
    let open = front.open(call(WATCH_EVENTS, GRPC, "", stay)).await.into_body();
    front.workers.draining().cancel();
    let rest = timeout(raw::MAX_WAIT, open.collect()).await.unwrap().unwrap();
    let status = Status::from_header_map(rest.trailers().unwrap()).unwrap();
    let problem = Problem::from_status(&status);
    assert_eq!((problem.reason(), problem.retry_delay().is_some()), (Reason::Unavailable, true));
}
