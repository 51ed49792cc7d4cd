//! `cargo xtask`: the contributor's one command surface.
//!
//! It sets a machine up, runs the mesh with its servers as supervised children, plays a whole sale through it, and runs
//! every check. It compiles in seconds from a bare toolchain, so of the product it may use the sale file and `vocab`
//! alone, and it must not depend on tokio, or on anything that needs more than a linker to build.
//!
//! `cargo xtask demo` plays the sale; `cargo xtask --help` lists all commands.

mod bench;
mod chaos;
mod cli;
mod clients;
mod clippy;
mod containers;
mod counts;
mod demo;
mod down;
mod fleet;
mod h2spec;
mod identity;
mod interrupt;
mod launch;
mod lint;
mod lists;
mod mesh;
mod openapi;
mod ports;
mod probe;
mod replicas;
#[cfg(test)]
mod scratch;
mod secrets;
mod servers;
mod setup;
mod shell;
mod state;
mod test;
mod tidy;
mod ui;
mod up;
mod usage;
mod workspace;

use crate::{
    cli::{Cli, Command},
    workspace::Workspace,
};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // The servers run under another account where this is root, and have to read what is written here.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let workspace = Workspace::locate();
    match command {
        Command::Setup(args) => setup::everything(&workspace, args.database).map(|()| ExitCode::SUCCESS),
        Command::Up(args) => up::run(&workspace, &args),
        Command::Down => down::run(&workspace).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Chaos(args) => chaos::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Clients(args) => clients::run(&workspace, &args),
        Command::Openapi => openapi::write(&workspace).map(|()| ExitCode::SUCCESS),
        Command::Fmt => lint::format(&workspace).map(|()| ExitCode::SUCCESS),
        Command::Lint(args) => lint::run(&workspace, &args).map(|()| ExitCode::SUCCESS),
        Command::Tidy => tidy::run(&workspace).map(|()| ExitCode::SUCCESS),
    }
}
