//! The services that a process serves.

use axum::Router;
use tonic::service::Routes;
use tonic_reflection::server::{
    Builder,
    v1::{ServerReflection, ServerReflectionServer},
};

use crate::{health::Health, serve::HttpBounds};

/// A process serves one of these.
pub enum App {
    /// gRPC services, with health and reflection added.
    Grpc(Grpc),
    /// An HTTP router, as it is. Health and reflection are on the admin port alone.
    Http(Http),
}

/// The gRPC services of a process.
pub struct Grpc {
    routes: Routes,
    contract: Contract,
}

/// The HTTP router of a process that stands before gRPC services.
pub struct Http {
    router: Router,
    bounds: HttpBounds,
    contract: Contract,
}

/// The services that reflection describes.
pub(crate) struct Contract {
    descriptor_set: &'static [u8],
    services: Vec<String>,
}

impl App {
    /// The services that reflection describes.
    pub(crate) fn contract(&self) -> &Contract {
        match self {
            App::Grpc(grpc) => &grpc.contract,
            App::Http(http) => &http.contract,
        }
    }
}

impl Grpc {
    /// `descriptor_set` is an encoded `FileDescriptorSet` with at least the services, which are
    /// given by their full names; it may be empty if they are not to be described.
    pub fn new(routes: Routes, descriptor_set: &'static [u8], services: &[&'static str]) -> Grpc {
        let services = services.iter().copied().map(String::from).collect();
        Grpc { routes, contract: Contract { descriptor_set, services } }
    }

    /// The names to report the health of.
    pub(crate) fn services(&self) -> &[String] {
        &self.contract.services
    }

    /// All that is served: the services, their health, and reflection.
    pub(crate) fn into_routes(
        self,
        health: &Health,
        reflection: ServerReflectionServer<impl ServerReflection>,
    ) -> Routes {
        self.routes.add_service(health.server()).add_service(reflection).prepare()
    }
}

impl Http {
    /// `descriptor_set` is an encoded `FileDescriptorSet` with at least the gRPC services that the
    /// router leads to, which are given by their full names.
    pub fn new(router: Router, descriptor_set: &'static [u8], services: Vec<String>) -> Http {
        Http { router, bounds: HttpBounds::default(), contract: Contract { descriptor_set, services } }
    }

    /// The same, whose clients can hold on to so much.
    #[must_use]
    pub fn within(self, bounds: HttpBounds) -> Http {
        Http { bounds, ..self }
    }

    /// The router.
    pub fn into_router(self) -> Router {
        self.router
    }

    pub(crate) fn into_parts(self) -> (Router, HttpBounds) {
        (self.router, self.bounds)
    }
}

impl Contract {
    /// The standard reflection service: the services of the contract, health, and itself.
    pub(crate) fn reflection(&self) -> anyhow::Result<ServerReflectionServer<impl ServerReflection + use<>>> {
        let mut reflection = Builder::configure()
            .register_encoded_file_descriptor_set(self.descriptor_set)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name("grpc.reflection.v1.ServerReflection");
        for service in &self.services {
            reflection = reflection.with_service_name(service);
        }
        Ok(reflection.build_v1()?)
    }
}

impl From<Grpc> for App {
    fn from(grpc: Grpc) -> App {
        App::Grpc(grpc)
    }
}

impl From<Http> for App {
    fn from(http: Http) -> App {
        App::Http(http)
    }
}
