//! gRPC callers that are not generated from the contract: those that compress, and those that use reflection.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use stampede_testkit::{Mesh, Process, Service};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// A public method, and an empty request compressed by gzip.
const LIST_EVENTS: &str = "/stampede.event.v1.EventService/ListEvents";
const NOTHING_BY_GZIP: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Statuses of gRPC.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// Calls a method with a request that declares this compression. Returns headers and trailers together.
async fn called(url: &str, encoding: &str) -> HeaderMap {
    let length = u32::try_from(NOTHING_BY_GZIP.len()).unwrap().to_be_bytes();
    let body = [&[1_u8][..], &length, &NOTHING_BY_GZIP].concat();
    let request: Request<Full<Bytes>> = Request::post(format!("{url}{LIST_EVENTS}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-encoding", encoding)
        .body(Full::from(body))
        .unwrap();
    let answer = Client::builder(TokioExecutor::new()).http2_only(true).build_http().request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let mut headers = head.headers;
    headers.extend(body.collect().await.unwrap().trailers().cloned().unwrap_or_default());
    headers
}

pub async fn case_01_a_compressed_request_is_read_or_refused_by_naming_what_is_read(mesh: &Mesh) {
    let gateway = mesh.url(Process::Gateway);
    let headers = called(&gateway, "gzip").await;
    assert_eq!(headers["grpc-status"], OK, "case 1: the gateway reads gzip: {headers:?}");
    // A compression that they do not read.
    let services = Service::ALL.map(|service| (mesh.url(service), "gzip", "identity"));
    for (url, encoding, read) in services.into_iter().chain([(gateway, "br", "identity,gzip")]) {
        let headers = called(&url, encoding).await;
        assert_eq!(headers["grpc-status"], UNIMPLEMENTED, "case 1: {encoding} at {url}: {headers:?}");
        assert_eq!(headers["grpc-accept-encoding"], read, "case 1: {url}");
        let message = headers["grpc-message"].to_str().unwrap();
        assert!(!message.contains("method"), "case 1: {url}: {message}");
    }
}

async fn asked(channel: &Channel, wanted: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap().message_response.unwrap()
}

/// Returns the services that a server lists by reflection.
async fn listed(channel: &Channel) -> Vec<String> {
    let answer = asked(channel, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("case 2: no list: {answer:?}") };
    list.service.into_iter().map(|service| service.name).collect()
}

pub async fn case_02_tools_that_ask_for_the_older_reflection_find_every_service(mesh: &Mesh) {
    let mut ports: Vec<(String, Vec<Service>)> = Vec::new();
    for service in Service::ALL {
        ports.extend([(mesh.url(service), vec![service]), (mesh.admin_url(service), vec![service])]);
    }
    for url in [mesh.url(Process::Gateway), mesh.admin_url(Process::Gateway)] {
        ports.push((url, Service::ALL.to_vec()));
    }
    for (url, services) in ports {
        let channel = Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let names = listed(&channel).await;
        for service in services {
            let name = format!("stampede.{service}.v1.{service:?}Service");
            assert!(names.contains(&name), "case 2: {url} does not list {name}: {names:?}");
        }
        // A tool requests this before it calls: each service, and the imports of its file.
        for symbol in names.into_iter().chain(["google.api.HttpRule".to_owned()]) {
            let answer = asked(&channel, MessageRequest::FileContainingSymbol(symbol.clone())).await;
            let is_described = matches!(answer, MessageResponse::FileDescriptorResponse(_));
            assert!(is_described, "case 2: {url} does not describe {symbol}: {answer:?}");
        }
    }
}
