//! Reflection and health on the admin port of the gateway.

use crate::front::build;
use stampede_chassis::{Admin, Workers, serve_on};
use stampede_vocab::Service;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test]
async fn reflection_lists_every_service_that_the_gateway_leads_to() {
    let workers = Workers::new();
    let http = build(&[], &workers).await;
    let [public, admin] =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let url = format!("http://{}", admin.local_addr().unwrap());
    let stop = CancellationToken::new();
    let admin = Some(Admin::spawn(admin, workers.clone()));
    let served = tokio::spawn(serve_on(public, admin, http, workers, stop.clone(), Duration::from_secs(1)));

    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let wanted = MessageRequest::ListServices(String::new());
    let requests =
        futures_util::stream::iter([ServerReflectionRequest { host: String::new(), message_request: Some(wanted) }]);
    let answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("not a list: {answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let services = Service::ALL.map(|service| format!("stampede.{service}.v1.{service:?}Service"));
    let own = ["health.v1.Health", "reflection.v1.ServerReflection", "reflection.v1alpha.ServerReflection"]
        .map(|name| format!("grpc.{name}"));
    let mut expected: Vec<String> = services.into_iter().chain(own).collect();
    expected.sort();
    assert_eq!(names, expected);
    stop.cancel();
    served.await.unwrap().unwrap();
}
