//! gRPC callers that are not generated from the contract: those that compress, and those that use reflection.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorProto;
use stampede_testkit::{Mesh, Process, Service};
use std::collections::BTreeMap;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// A public method, and an empty request compressed by gzip.
const LIST_EVENTS: &str = "/stampede.event.v1.EventService/ListEvents";
const NOTHING_BY_GZIP: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A message that the files of services import.
const HTTP_RULE: &str = "google.api.HttpRule";
const IDENTITY: &str = "identity";
/// Bytes before a message.
const FRAME_HEAD: usize = 5;
/// Statuses of gRPC.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// Calls a method with a message in this encoding. Returns headers and trailers together, and the first message.
async fn called(url: &str, path: &str, encoding: &str, message: &[u8]) -> (HeaderMap, Bytes) {
    let is_compressed = u8::from(encoding != IDENTITY);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[is_compressed][..], &length, message].concat();
    let request: Request<Full<Bytes>> = Request::post(format!("{url}{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-encoding", encoding)
        .body(Full::from(body))
        .unwrap();
    let answer = Client::builder(TokioExecutor::new()).http2_only(true).build_http().request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let (mut headers, body) = (head.headers, body.collect().await.unwrap());
    headers.extend(body.trailers().cloned().unwrap_or_default());
    let mut messages = body.to_bytes();
    // Behind whether it is compressed, and its length.
    (headers, messages.split_off(messages.len().min(FRAME_HEAD)))
}

pub async fn case_01_a_compressed_request_is_read_or_refused_by_naming_what_is_read(mesh: &Mesh) {
    let gateway = mesh.url(Process::Gateway);
    let headers = called(&gateway, LIST_EVENTS, "gzip", &NOTHING_BY_GZIP).await.0;
    assert_eq!(headers["grpc-status"], OK, "case 1: the gateway reads gzip: {headers:?}");
    // A compression that they do not read.
    let services = Service::ALL.map(|service| (mesh.url(service), "gzip", IDENTITY));
    for (url, encoding, read) in services.into_iter().chain([(gateway, "br", "identity,gzip")]) {
        let headers = called(&url, LIST_EVENTS, encoding, &NOTHING_BY_GZIP).await.0;
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
        let described = described(&channel, &url, &names).await;
        assert!(described.get_message_by_name(HTTP_RULE).is_some(), "case 2: {url} does not describe {HTTP_RULE}");
        for service in names.iter().map(|name| described.get_service_by_name(name).unwrap()) {
            for message in service.methods().flat_map(|method| [method.input(), method.output()]) {
                let files = described_by(&channel, &url, in_file_of(message.full_name())).await;
                let file = message.parent_file();
                assert!(files.iter().any(|one| one.name() == file.name()), "case 2: {url}: {}", message.full_name());
            }
        }
    }
    for url in [mesh.url(Service::Event), mesh.url(Process::Gateway)] {
        is_called_as_described(&url).await;
    }
}

fn in_file_of(symbol: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(symbol.to_owned())
}

/// Returns the files that a request for a symbol or a file is answered with.
async fn described_by(channel: &Channel, url: &str, wanted: MessageRequest) -> Vec<FileDescriptorProto> {
    let answer = asked(channel, wanted.clone()).await;
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        panic!("case 2: {url} does not describe {wanted:?}: {answer:?}")
    };
    let files = files.file_descriptor_proto.iter();
    files.map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap()).collect()
}

/// Collects the files of these services with all that they import, as a tool does before it calls.
async fn described(channel: &Channel, url: &str, services: &[String]) -> DescriptorPool {
    let mut wanted: Vec<MessageRequest> = services.iter().map(|service| in_file_of(service)).collect();
    wanted.push(in_file_of(HTTP_RULE));
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    while let Some(next) = wanted.pop() {
        if matches!(&next, MessageRequest::FileByFilename(name) if files.contains_key(name)) {
            continue;
        }
        for file in described_by(channel, url, next).await {
            wanted.extend(file.dependency.iter().cloned().map(MessageRequest::FileByFilename));
            files.insert(file.name().to_owned(), file);
        }
    }
    let mut pool = DescriptorPool::new();
    let complete = pool.add_file_descriptor_protos(files.into_values());
    complete.unwrap_or_else(|error| panic!("case 2: what {url} describes is not complete: {error}"));
    pool
}

/// Makes a call of which nothing is known but what reflection tells.
async fn is_called_as_described(url: &str) {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let pool = described(&channel, url, &listed(&channel).await).await;
    let mut methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let list = methods.find(|method| method.name() == "ListEvents").unwrap();
    let path = format!("/{}/{}", list.parent_service().full_name(), list.name());
    let request = DynamicMessage::new(list.input()).encode_to_vec();
    let (headers, message) = called(url, &path, IDENTITY, &request).await;
    assert_eq!(headers["grpc-status"], OK, "case 2: {url}: {headers:?}");
    let answer = DynamicMessage::decode(list.output(), message).unwrap();
    let events = answer.get_field_by_name("events").unwrap();
    assert!(events.as_list().is_some_and(|events| !events.is_empty()), "case 2: {url}: {answer}");
}
