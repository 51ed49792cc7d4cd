//! gRPC health by the gates: all services of a process are SERVING, or none.

use crate::Workers;
use tokio_util::task::AbortOnDropHandle;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

/// The health of the process as gRPC callers see it.
pub(crate) struct Health {
    reporter: HealthReporter,
    names: Vec<String>,
}

impl Health {
    /// Reports on these services, and on the process under the empty name.
    pub(crate) fn of(services: &[String]) -> Health {
        let names = std::iter::once(String::new()).chain(services.iter().cloned()).collect();
        Health { reporter: HealthReporter::new(), names }
    }

    /// Returns the standard health service.
    pub(crate) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Reports the present state, and each change until the handle is dropped.
    pub(crate) async fn follow(self, workers: Workers) -> AbortOnDropHandle<()> {
        let mut gates = workers.gates();
        let draining = workers.draining();
        self.report(workers.is_ready()).await;
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(Ok(())) = draining.run_until_cancelled(gates.changed()).await {
                self.report(workers.is_ready()).await;
            }
            self.report(false).await;
        }))
    }

    async fn report(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
