//! Health and reflection at the gateway's port: for anybody, and of nothing but what can be called from outside.

use crate::{
    front::with,
    grpc::{call, front, send},
    raw::{Door, MAX_WAIT},
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{future::pending, stream};
use prost::Message;
use prost_types::FileDescriptorProto;
use stampede_vocab::Service;
use std::convert::Infallible;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

async fn channel(door: &Door) -> Channel {
    Endpoint::from_shared(format!("http://{}", door.address)).unwrap().connect().await.unwrap()
}

async fn reflected(
    channel: Channel,
    wanted: v1::server_reflection_request::MessageRequest,
) -> v1::server_reflection_response::MessageResponse {
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
}

/// Returns the services in alphabetical order.
fn expected() -> Vec<String> {
    let services = Service::ALL.map(|service| format!("stampede.{service}.v1.{service:?}Service"));
    let own =
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let mut all: Vec<_> = services.into_iter().chain(own.map(str::to_owned)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use v1::server_reflection_response::MessageResponse::ListServicesResponse;
    let door = Door::open(&[]).await;
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ListServicesResponse(list) = reflected(channel(&door).await, list).await else { panic!("not a list") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected());

    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&door).await);
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("not a list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, expected());
}

#[tokio::test]
async fn reflection_describes_no_method_that_is_internal() {
    use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
    let door = Door::open(&[]).await;
    let symbol = "stampede.order.v1.OrderService".to_owned();
    let wanted = v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol);
    let FileDescriptorResponse(files) = reflected(channel(&door).await, wanted).await else { panic!("not a file") };
    let files = files.file_descriptor_proto.iter().map(|file| FileDescriptorProto::decode(file.as_slice()).unwrap());
    let methods: Vec<_> = files
        .flat_map(|file| file.service)
        .flat_map(|service| service.method)
        .map(|method| method.name().to_owned())
        .collect();
    assert!(methods.iter().any(|method| method == "PlaceOrder"), "{methods:?}");
    assert!(!methods.iter().any(|method| method == "LookUpOrders"), "{methods:?}");
}

#[tokio::test]
async fn health_is_that_of_the_gateway() {
    let door = Door::open(&[]).await;
    let mut health = HealthClient::new(channel(&door).await);
    for service in ["", "stampede.order.v1.OrderService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "no.such.Service".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn its_streams_count_as_others_do() {
    let door = Door::open(&[("--max-streams", "1"), ("--max-subjects", "1")]).await;
    let mut health = HealthClient::new(channel(&door).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(health.watch(HealthCheckRequest::default()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn what_a_call_has_not_sent_by_its_end_is_not_waited_for() {
    const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (front, _guard) = front(&[]).await;
    let given_up = CancellationToken::new();
    let never = stream::unfold(given_up.clone().drop_guard(), |held| async move {
        pending::<()>().await;
        Some((Ok::<_, Infallible>(Bytes::new()), held))
    });
    let request = call(REFLECT, "application/grpc", "", Body::from_stream(never));
    let reply = send(&front, with(request, &[("grpc-timeout", "100m")])).await;
    assert_eq!(Status::from_header_map(&reply.trailers).unwrap().code(), Code::DeadlineExceeded);
    timeout(MAX_WAIT, given_up.cancelled()).await.expect("the body is given up with the call");
}
