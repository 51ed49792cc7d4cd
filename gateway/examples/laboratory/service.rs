//! The gRPC handler within the layers that a service has: authorization, deadline, limits, metrics, spans.

use crate::backend;
use clap::Args;
use stampede_chassis::{CommonConfig, Grpc, HasCommon, Workers, run};
use stampede_vocab::{Process, Service};
use std::process::ExitCode;
use tonic::service::Routes;

/// Flags of every service.
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    common: CommonConfig,
}

impl HasCommon for Config {
    fn common(&self) -> &CommonConfig {
        &self.common
    }
}

/// Serves until it is signalled.
pub fn serve(config: Config) -> ExitCode {
    run(Process::Service(Service::Coupon), config, build)
}

async fn build(_: Config, _: Workers) -> anyhow::Result<Grpc> {
    Ok(Grpc::new(Routes::from(backend::calls()), stampede_proto::DESCRIPTOR_SET, &[backend::SERVICE]))
}
