//! `cargo xtask bench`: puts load on a mesh with the tools that load testers know, and reports the results: rates and
//! latencies, outcomes by reason, the cost of each call, and whether every promise still held. The gateway can be
//! measured alone too, and with a crowd that watches; and how late events open that are due at the same instant.

pub mod costs;
mod gateway;
mod ghz;
mod jmeter;
mod laboratory;
mod metrics;
mod opening;
mod page;
mod plan;
mod samples;
mod seed;
mod share;
mod stage;
mod watchers;
mod wrk;

use crate::{
    cli::{BenchArgs, Generator},
    workspace::Workspace,
};
use std::process::ExitCode;

/// The directory of the mesh that a bench starts, under `.stampede/`. Its measurements lie next to it.
pub const RUN: &str = "bench/mesh";

/// Runs the plans; non-zero if an answer was unexpected, or a promise was broken.
pub fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let as_it_should_be = match &args.generator {
        Generator::Ghz(args) => ghz::run(workspace, args)?,
        Generator::Jmeter(args) => jmeter::run(workspace, args)?,
        Generator::Gateway(args) => gateway::run(workspace, args)?,
        Generator::EventOpen(args) => opening::run(workspace, args)?,
        Generator::Watchers(args) => watchers::run(workspace, args)?,
    };
    Ok(if as_it_should_be { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
