//! What a service hands over to be served.

use axum::Router;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

use crate::health::Health;

/// A process serves one of these.
pub enum App {
    /// gRPC services, with health and reflection added.
    Grpc(Grpc),
    /// An HTTP router, as it is.
    Http(Router),
}

/// The gRPC services of a process.
pub struct Grpc {
    routes: Routes,
    descriptor_set: &'static [u8],
    services: Vec<&'static str>,
}

impl Grpc {
    /// `descriptor_set` is an encoded `FileDescriptorSet` with at least the services, which are
    /// given by their full names; it may be empty if they are not to be described.
    pub fn new(routes: Routes, descriptor_set: &'static [u8], services: &[&'static str]) -> Grpc {
        Grpc { routes, descriptor_set, services: services.to_vec() }
    }

    /// The names to report the health of.
    pub(crate) fn services(&self) -> &[&'static str] {
        &self.services
    }

    /// All that is served: the services, their health, and reflection.
    pub(crate) fn into_routes(self, health: &Health) -> anyhow::Result<Routes> {
        let mut reflection = Builder::configure()
            .register_encoded_file_descriptor_set(self.descriptor_set)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name("grpc.reflection.v1.ServerReflection");
        for service in &self.services {
            reflection = reflection.with_service_name(*service);
        }
        Ok(self.routes.add_service(health.server()).add_service(reflection.build_v1()?).prepare())
    }
}

impl From<Grpc> for App {
    fn from(grpc: Grpc) -> App {
        App::Grpc(grpc)
    }
}

impl From<Router> for App {
    fn from(router: Router) -> App {
        App::Http(router)
    }
}
