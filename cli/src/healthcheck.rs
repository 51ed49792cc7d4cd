//! `stampede healthcheck`: checks whether a process is ready, as a container's health check does where there is neither
//! a shell nor curl.

use crate::output::{Output, print_json, print_text};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Serialize;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Check whether a process is ready.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stampede healthcheck 127.0.0.1:7204
  stampede healthcheck http://127.0.0.1:7190/healthz

Exit code 0: it is ready. 1: it answers that it is not. 2: it does not answer.")]
pub struct Args {
    /// Process to check: HOST:PORT of an admin port by gRPC health, a http:// URL by GET, where 200 is ready. An
    /// address that stands for all of a machine, such as 0.0.0.0, is reached on the loopback
    #[arg(env = "STAMPEDE_ADMIN_ADDR", value_name = "ADDRESS")]
    target: Target,

    /// Milliseconds to wait for the answer
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
}

/// The process to check, and the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// gRPC health at an address.
    Grpc(String),
    Http(Uri),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") {
            return text.parse().map(Self::Http).map_err(|error| format!("no URL: {error}"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Grpc(SocketAddr::new(reachable(address.ip()), address.port()).to_string()));
        }
        let named = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && !host.contains(['/', ':']) && port.parse::<u16>().is_ok());
        match named {
            true => Ok(Self::Grpc(text.to_owned())),
            false => Err("expected HOST:PORT, or a URL that begins with http://".to_owned()),
        }
    }
}

/// Returns the address at which a listener on all addresses can be reached from its own machine.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[derive(Serialize)]
struct Health {
    ready: bool,
    says: String,
}

/// Checks the target and prints the answer. Returns whether it is ready.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let limit = Duration::from_millis(args.timeout_ms);
    let checked = timeout(limit, async {
        match &args.target {
            Target::Grpc(address) => check_grpc(address).await,
            Target::Http(uri) => check_http(uri.clone()).await,
        }
    });
    let Ok(health) = checked.await else { bail!("no answer within {} ms", args.timeout_ms) };
    let health = health?;
    if output.json {
        print_json(&health)?;
    } else {
        print_text(&health.says)?;
    }
    Ok(health.ready)
}

async fn check_grpc(address: &str) -> anyhow::Result<Health> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("the address is not valid")?;
    let channel = endpoint.connect().await.with_context(|| format!("{address} cannot be reached"))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let status = answer.map_err(|status| anyhow::anyhow!("{address}: {:?}: {}", status.code(), status.message()))?;
    let status = status.into_inner().status();
    Ok(Health { ready: status == ServingStatus::Serving, says: status.as_str_name().to_owned() })
}

async fn check_http(uri: Uri) -> anyhow::Result<Health> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(uri.clone()).await.with_context(|| format!("{uri} cannot be reached"))?;
    Ok(Health { ready: answer.status() == StatusCode::OK, says: answer.status().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_the_loopback() {
        for (given, reached) in [
            ("0.0.0.0:7204", "127.0.0.1:7204"),
            ("[::]:7204", "[::1]:7204"),
            ("10.0.0.7:7204", "10.0.0.7:7204"),
            ("order:7204", "order:7204"),
        ] {
            assert_eq!(given.parse(), Ok(Target::Grpc(reached.to_owned())));
        }
        assert!(matches!("http://sandbox:7190/healthz".parse(), Ok(Target::Http(_))));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["7204", ":7204", "order", "order:port", "https://order:7204"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
