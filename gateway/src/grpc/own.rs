//! The services of the gateway itself: health, and reflection of what can be called from outside.
//!
//! They need no authorization. Each call counts as a stream and ends like one; messages that it has not sent by then
//! are not read.

use super::{respond, stream::lapse};
use crate::{
    auth::UntilEnd,
    bounds::BODY_DEADLINE,
    hold::{Class, Holds},
    routes::Table,
};
use anyhow::Context;
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use futures_util::StreamExt;
use http_body_util::{BodyStream, StreamBody};
use hyper::body::Frame;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use stampede_chassis::{Deadline, keep};
use stampede_status::{Problem, Reason};
use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{codegen::Service, service::Routes};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tonic_reflection::server::Builder;

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
/// Their methods.
const PATHS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Largest request, in bytes: the name of a service, a symbol or a file.
const LARGEST_REQUEST_BYTES: usize = 4 * 1_024;

/// Returns the method of this path, if it is one of the gateway's own.
pub fn find(path: &str) -> Option<&'static str> {
    PATHS.into_iter().find(|own| *own == path)
}

/// Health and reflection.
pub struct Own {
    routes: Routes,
    draining: CancellationToken,
    _health: AbortOnDropHandle<()>,
}

impl Own {
    /// Shows the methods of `table`. Reports SERVING until `draining` is cancelled.
    pub async fn new(table: &Table, draining: CancellationToken) -> anyhow::Result<Self> {
        let shown = shown(table)?;
        let services = names(&shown);
        let reporter = HealthReporter::new();
        report(&reporter, &services, ServingStatus::Serving).await;
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let v1 = reflection(&shown, &services).build_v1()?;
        let v1alpha = reflection(&shown, &services).build_v1alpha()?;
        let routes = Routes::new(health.max_decoding_message_size(LARGEST_REQUEST_BYTES))
            .add_service(v1.max_decoding_message_size(LARGEST_REQUEST_BYTES))
            .add_service(v1alpha.max_decoding_message_size(LARGEST_REQUEST_BYTES))
            .prepare();
        let leaves = draining.clone();
        let _health = AbortOnDropHandle::new(tokio::spawn(async move {
            leaves.cancelled().await;
            report(&reporter, &services, ServingStatus::NotServing).await;
        }));
        Ok(Self { routes, draining, _health })
    }

    /// Answers a call of one of the methods.
    pub async fn answer(&self, holds: &Holds, request: Request) -> Result<Response, Problem> {
        let theirs = Deadline::from_headers(request.headers());
        let (parts, body) = request.into_parts();
        let permit = holds.stream_about(&holds.holder(&parts, None), Class::PublicReads, 1)?;
        let over = CancellationToken::new();
        // Dropped with the answer, however that ends.
        let kept = (permit, over.clone().drop_guard());
        let call = self.routes.clone().call(Request::from_parts(parts, until_over(body, over)));
        let late = |_| Problem::new(Reason::BodyTimeout, "the message of the call did not arrive in time");
        let Ok(response) = timeout(BODY_DEADLINE, call).await.map_err(late)?;
        if response.body().is_end_stream() {
            // The whole answer is in the head.
            return Ok(response.map(Body::new));
        }
        let (head, body) = response.into_parts();
        let frames = UntilEnd::new(BodyStream::new(body), lapse(self.draining.clone(), theirs));
        let ended = |status| Frame::trailers(respond::trailers(Some(&status)));
        let frames = frames.map(move |frame| Ok::<_, Infallible>(frame.unwrap_or_else(ended)));
        Ok(keep(Response::from_parts(head, Body::new(StreamBody::new(frames))), kept))
    }
}

/// Returns a body that ends when the call is over. Reflection reads it on a task of its own, which would otherwise wait
/// for the next message as long as the connection lives, without a permit.
fn until_over(body: Body, over: CancellationToken) -> Body {
    Body::new(StreamBody::new(BodyStream::new(body).take_until(over.cancelled_owned())))
}

/// Sets the health of the services, and of the whole under the empty name.
async fn report(reporter: &HealthReporter, services: &[String], status: ServingStatus) {
    reporter.set_service_status("", status).await;
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}

fn reflection(shown: &FileDescriptorSet, services: &[String]) -> Builder<'static> {
    let own = [HEALTH].into_iter().chain(REFLECTION);
    let builder = Builder::configure()
        .register_file_descriptor_set(shown.clone())
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false);
    let names = own.map(str::to_owned).chain(services.iter().cloned());
    names.fold(builder, Builder::with_service_name)
}

/// Returns the contract without the methods that cannot be called from outside, and without files that only those need.
fn shown(table: &Table) -> anyhow::Result<FileDescriptorSet> {
    let mut set = FileDescriptorSet::decode(stampede_proto::DESCRIPTOR_SET).context("the contract cannot be read")?;
    for file in &mut set.file {
        // Source info refers to methods by their number, which has changed.
        file.source_code_info = None;
        let package = file.package().to_owned();
        for service in &mut file.service {
            let service_path = format!("/{package}.{}/", service.name());
            service.method.retain(|method| table.find_call(&format!("{service_path}{}", method.name())).is_some());
        }
        file.service.retain(|service| !service.method.is_empty());
    }
    let needed = needed(&set);
    set.file.retain(|file| needed.contains(file.name()));
    Ok(set)
}

/// Returns the names of the files with services, and of those that they import.
fn needed(set: &FileDescriptorSet) -> BTreeSet<String> {
    let files: HashMap<&str, &FileDescriptorProto> = set.file.iter().map(|file| (file.name(), file)).collect();
    let mut wanted: Vec<&str> =
        set.file.iter().filter(|file| !file.service.is_empty()).map(|file| file.name()).collect();
    let mut needed = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if needed.insert(name.to_owned())
            && let Some(file) = files.get(name)
        {
            wanted.extend(file.dependency.iter().map(String::as_str));
        }
    }
    needed
}

fn names(set: &FileDescriptorSet) -> Vec<String> {
    let of_file = |file: &FileDescriptorProto| {
        let package = file.package().to_owned();
        file.service.iter().map(|service| format!("{package}.{}", service.name())).collect::<Vec<_>>()
    };
    set.file.iter().flat_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_called_from_outside_is_shown() {
        let table = Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap();
        let shown = shown(&table).unwrap();
        let methods = || shown.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        assert!(methods().any(|method| method.name() == "PlaceOrder"));
        for hidden in ["HoldCoupons", "Reserve", "StageStock", "LookUpOrders"] {
            assert!(methods().all(|method| method.name() != hidden), "{hidden} is shown");
        }
        let files: Vec<_> = shown.file.iter().map(|file| file.name()).collect();
        assert!(files.iter().all(|file| !file.starts_with("stampede/message/")), "{files:?}");
        assert!(files.contains(&"stampede/type/v1/money.proto"), "{files:?}");
        assert_eq!(names(&shown).len(), stampede_vocab::Service::ALL.len());
    }
}
