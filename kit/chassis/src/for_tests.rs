//! A small process, for the tests of servers and clients. Its messages are those of the health protocol, so that the
//! crate needs no protos of its own.

use crate::{Admin, Deadline, Grpc, Workers, serve_on};
use axum::routing::any_service;
use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
    service::Routes,
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tower::service_fn;

type Codec = ProstCodec<HealthCheckResponse, HealthCheckRequest>;

/// The service `test.Calls` of a replica whose calls answer with its number.
pub(crate) fn grpc(number: i32) -> Grpc {
    let mut routes = Routes::default();
    let router = std::mem::take(routes.axum_router_mut())
        .route("/test.Calls/Number", unary(move || async move { number }))
        .route("/test.Calls/Slow", unary(|| async { sleep(Duration::from_millis(600)).await }))
        .route("/test.Calls/Never", unary(std::future::pending::<i32>))
        .route("/test.Calls/Panic", unary(|| async { panic!("a bug") as i32 }))
        .route("/test.Calls/MillisLeft", unary(|| async { millis_left() }))
        .route("/test.Calls/Watch", any_service(service_fn(watch)));
    Grpc::new(Routes::from(router), &[], &["test.Calls"]).believing_everybody()
}

trait IntoNumber {
    fn number(self) -> i32;
}

impl IntoNumber for i32 {
    fn number(self) -> i32 {
        self
    }
}

impl IntoNumber for () {
    fn number(self) -> i32 {
        0
    }
}

fn millis_left() -> i32 {
    Deadline::current().map_or(-1, |deadline| i32::try_from(deadline.remaining().as_millis()).unwrap())
}

fn unary<F, Fut>(answer: F) -> axum::routing::MethodRouter
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: IntoNumber> + Send + 'static,
{
    any_service(service_fn(move |request: HttpRequest<axum::body::Body>| {
        let answer = answer.clone();
        let method = service_fn(move |_: Request<HealthCheckRequest>| {
            let answer = answer();
            async move { Ok::<_, Status>(Response::new(HealthCheckResponse { status: answer.await.number() })) }
        });
        async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok::<HttpResponse<Body>, std::convert::Infallible>(grpc.unary(method, request).await)
        }
    }))
}

/// Sends one message, and stays open.
async fn watch(request: HttpRequest<axum::body::Body>) -> Result<HttpResponse<Body>, std::convert::Infallible> {
    use futures_util::{StreamExt, stream};
    let method = service_fn(|_: Request<HealthCheckRequest>| async {
        let first = stream::iter([Ok::<_, Status>(HealthCheckResponse::default())]);
        Ok::<_, Status>(Response::new(first.chain(stream::pending())))
    });
    Ok(tonic::server::Grpc::new(Codec::default()).server_streaming(method, request).await)
}

/// Calls `test.Calls/<method>` and returns the number in its answer.
pub(crate) async fn call<C>(channel: C, path: &'static str) -> Result<i32, Status>
where
    C: GrpcService<Body, Error: Into<StdError>>,
    C::ResponseBody: hyper::body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest::default());
    grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(|answer| answer.get_ref().status)
}

/// Opens the stream `test.Calls/Watch`.
pub(crate) async fn open_watch<C>(channel: C) -> Result<Streaming<HealthCheckResponse>, Status>
where
    C: GrpcService<Body, Error: Into<StdError>>,
    C::ResponseBody: hyper::body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest::default());
    let path = PathAndQuery::from_static("/test.Calls/Watch");
    grpc.server_streaming(request, path, codec).await.map(Response::into_inner)
}

/// Returns the services that reflection lists, sorted.
pub(crate) async fn reflected_services(channel: Channel) -> Result<Vec<String>, Status> {
    let wanted = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let requests = futures_util::stream::iter([request]);
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await?.into_inner();
    let answer = answers.message().await?.and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("not a list: {answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    Ok(names)
}

/// Makes a peer vanish: its kernel drops all that arrives, so it acknowledges and answers nothing.
#[cfg(target_os = "linux")]
pub(crate) fn vanish(peer: &TcpStream) {
    // A filter of one instruction that drops each packet: BPF_RET with 0.
    let keeps_nothing = socket2::SockFilter::new(6, 0, 0, 0);
    socket2::SockRef::from(peer).attach_filter(&[keeps_nothing]).unwrap();
}

/// A process that serves on free ports of this machine.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<anyhow::Result<()>>,
}

/// Measures up to three times what has to be quicker than `bound` once: the machine may be busy with other tests.
pub(crate) async fn once_within<F: AsyncFn() -> Duration>(bound: Duration, measure: F) {
    let mut took: Vec<Duration> = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|time| *time >= bound) {
        took.push(measure().await);
    }
    assert!(took.last().is_some_and(|time| *time < bound), "{took:?}, and not within {bound:?}");
}

impl Process {
    pub(crate) async fn start(number: i32, workers: Workers, drain: Duration) -> Process {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Process::start_on(listener, number, workers, drain).await
    }

    pub(crate) async fn start_on(listener: TcpListener, number: i32, workers: Workers, drain: Duration) -> Process {
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin) = (listener.local_addr().unwrap(), admin_listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = serve_on(
            listener,
            Some(Admin::spawn(admin_listener, workers.clone())),
            grpc(number),
            workers,
            stop.clone(),
            drain,
        );
        Process { address, admin, stop, serving: tokio::spawn(serving) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the status line and body of an admin page.
    pub(crate) async fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
}
