//! `stampede`, the one program: every process of the mesh, and the operator's commands.

mod cli;
mod secret_files;

use std::process::ExitCode;

use cli::{Cli, Command, Serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { format, command } = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return cli::not_understood(&error),
    };
    match command {
        Command::Serve { process } => serve(process),
        Command::Operator(command) => stampede_cli::run(*command, format),
        Command::Completions { shell } => cli::print_completions(shell),
    }
}

fn serve(process: Serve) -> ExitCode {
    let of = process.process();
    match process {
        Serve::Event(config) => stampede_chassis::run(of, *config, stampede_event::build),
        Serve::Coupon(config) => stampede_chassis::run(of, *config, stampede_coupon::build),
        Serve::Inventory(config) => stampede_chassis::run(of, *config, stampede_inventory::build),
        Serve::Order(config) => stampede_chassis::run(of, *config, stampede_order::build),
        Serve::Payment(config) => stampede_chassis::run(of, *config, stampede_payment::build),
        Serve::Gateway(config) => stampede_chassis::run(of, *config, stampede_gateway::build),
        Serve::Sandbox(config) => stampede_sandbox::run(*config),
    }
}
