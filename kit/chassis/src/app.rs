//! The services that a process serves.

use crate::{
    guard::Guard,
    health::Health,
    mesh::Trust,
    serve::{HttpBounds, Tls},
};
use anyhow::Context;
use axum::Router;
use tonic::service::Routes;
use tonic_reflection::{pb, server::Builder};

/// The reflection services, by their names and their routes. Older tools ask for v1alpha.
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// The services of one process.
pub enum App {
    /// gRPC services, with health and reflection added.
    Grpc(Grpc),
    /// An HTTP router, unchanged. Health and reflection are added on the admin port only.
    Http(Http),
}

/// The gRPC services of a process.
pub struct Grpc {
    routes: Routes,
    contract: Contract,
    guard: Guard,
}

/// The HTTP router of a process in front of gRPC services.
pub struct Http {
    router: Router,
    bounds: Box<HttpBounds>,
    tls: Option<Tls>,
    contract: Contract,
}

/// The services that reflection describes.
pub(crate) struct Contract {
    descriptor_set: &'static [u8],
    services: Vec<String>,
}

impl App {
    /// Returns the services that reflection describes.
    pub(crate) fn contract(&self) -> &Contract {
        match self {
            App::Grpc(grpc) => &grpc.contract,
            App::Http(http) => &http.contract,
        }
    }

    /// Guards gRPC calls by the access rules of the contract, for callers that `trust` authenticates. A router
    /// authorizes its requests itself.
    pub(crate) fn guarded_by(self, trust: Trust) -> anyhow::Result<App> {
        match self {
            App::Grpc(grpc) => {
                let guard = Guard::of_contract(grpc.contract.descriptor_set, trust).context("who may call what")?;
                Ok(App::Grpc(Grpc { guard, ..grpc }))
            }
            App::Http(http) => Ok(App::Http(http)),
        }
    }
}

impl Grpc {
    /// Takes the full names of the services and an encoded `FileDescriptorSet` with at least these, which may be empty
    /// to leave them undescribed. [`run`](crate::run) enforces the access rules of the contract; a service that is
    /// served without it refuses all calls.
    pub fn new(routes: Routes, descriptor_set: &'static [u8], services: &[&'static str]) -> Grpc {
        let services = services.iter().copied().map(String::from).collect();
        Grpc { routes, contract: Contract { descriptor_set, services }, guard: Guard::Closed }
    }

    /// Admits all calls with the identity in their plain metadata; for tests.
    #[must_use]
    pub fn believing_everybody(self) -> Grpc {
        Grpc { guard: Guard::Open, ..self }
    }

    /// Returns the names to report the health of.
    pub(crate) fn services(&self) -> &[String] {
        &self.contract.services
    }

    /// Returns all routes (services, health, reflection) and the guard around them.
    pub(crate) fn into_parts(self, health: &Health, reflection: Router) -> (Routes, Guard) {
        let router = self.routes.add_service(health.server()).into_axum_router().merge(reflection);
        (Routes::from(router).prepare(), self.guard)
    }
}

impl Http {
    /// Takes the full names of the gRPC services that the router leads to, and an encoded `FileDescriptorSet` with at
    /// least these.
    pub fn new(router: Router, descriptor_set: &'static [u8], services: Vec<String>) -> Http {
        let contract = Contract { descriptor_set, services };
        Http { router, bounds: Box::default(), tls: None, contract }
    }

    /// Replaces the limits of its connections.
    #[must_use]
    pub fn within(self, bounds: HttpBounds) -> Http {
        Http { bounds: Box::new(bounds), ..self }
    }

    /// Serves TLS if there is a certificate.
    #[must_use]
    pub fn in_tls(self, tls: Option<Tls>) -> Http {
        Http { tls, ..self }
    }

    /// Returns the router.
    pub fn into_router(self) -> Router {
        self.router
    }

    pub(crate) fn into_parts(self) -> (Router, HttpBounds, Option<Tls>) {
        (self.router, *self.bounds, self.tls)
    }
}

impl Contract {
    /// Returns the routes of the standard reflection services: they describe the services of the contract, health, and
    /// themselves.
    pub(crate) fn reflection(&self) -> anyhow::Result<Router> {
        let routes = Router::new()
            .route_service(&format!("/{REFLECTION}/{{method}}"), self.described().build_v1()?)
            .route_service(&format!("/{REFLECTION_ALPHA}/{{method}}"), self.described().build_v1alpha()?);
        Ok(routes)
    }

    fn described(&self) -> Builder<'static> {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(self.descriptor_set)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET);
        let own = ["grpc.health.v1.Health", REFLECTION, REFLECTION_ALPHA].into_iter();
        own.chain(self.services.iter().map(String::as_str)).fold(builder, Builder::with_service_name)
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
