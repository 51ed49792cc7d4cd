//! The framework of every process: configuration, telemetry, health, serving, draining.
//!
//! A service is a function from its configuration to its gRPC services; all else that a process needs is here, once.
//! [`run`] has the order: start logging, bind the ports, build the service unless a signal interrupts it, serve until
//! it is stopped or a worker fails, then shut down in order:
//!
//! 1. readiness turns to NOT_SERVING, and callers have a moment to see it;
//! 2. no new connections; calls under way finish, streams end;
//! 3. workers of [`Stage::Consumer`] stop, then those of [`Stage::Relay`], so that the messages of the last calls are
//!    still sent;
//! 4. spans are flushed.
//!
//! Each layer around the services adds one thing to every call: trace context, metrics, authorization, deadlines,
//! limits, panics. The caller's side of them is [`MeshChannel`]. The layers that an HTTP router needs are public. This
//! crate must not know any service, its protos or its servers.
//!
//! ```no_run
//! use clap::Parser;
//! use stampede_chassis::{CommonConfig, Grpc, HasCommon, Workers, run};
//! use std::process::ExitCode;
//!
//! #[derive(Parser)]
//! struct Config { #[command(flatten)] common: CommonConfig }
//! # impl HasCommon for Config {
//! #     fn common(&self) -> &CommonConfig { &self.common }
//! # }
//!
//! async fn build(_: Config, _: Workers) -> anyhow::Result<Grpc> {
//!     Ok(Grpc::new(tonic::service::Routes::default(), &[], &[]))
//! }
//!
//! fn main() -> ExitCode {
//!     run(stampede_vocab::Process::Sandbox, Config::parse(), build)
//! }
//! ```

#![warn(missing_docs)]

pub mod config;
pub mod deadline;
pub mod identity;
pub mod mesh;
pub mod serve;
pub mod telemetry;

mod admin;
mod app;
mod client;
mod clock;
#[cfg(test)]
mod for_tests;
mod guard;
mod health;
mod keep;
mod layers;
mod offenders;
mod peer;
mod process;
mod signals;
mod wait;
mod workers;

pub use admin::Admin;
pub use app::{App, Grpc, Http};
pub use client::{MeshChannel, ReadOnly, retry_unavailable};
pub use clock::{SharedClock, follow_clock};
pub use config::{CommonConfig, HasCommon};
pub use deadline::Deadline;
pub use identity::{Identity, Role};
pub use keep::keep;
pub use layers::catch_panic;
pub use mesh::{MeshArgs, Signer, Trust};
pub use offenders::Offenders;
pub use peer::{Block, Network, Networks, NotANetwork, Peer};
pub use process::run;
pub use serve::{HttpBounds, Tls, TlsFiles, serve_on};
pub use wait::wait_for;
pub use workers::{ReadyGate, Stage, Workers};
