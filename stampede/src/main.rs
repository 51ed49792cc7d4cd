//! `stampede`, the one program: every process of the mesh, and the operator's commands.

mod cli;
mod secret_files;

use std::process::ExitCode;

use cli::{Cli, Command, Service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { format, command } = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return cli::not_understood(&error),
    };
    match command {
        Command::Serve { service } => serve(service),
        Command::Operator(command) => stampede_cli::run(*command, format),
        Command::Completions { shell } => cli::print_completions(shell),
    }
}

fn serve(service: Service) -> ExitCode {
    match service {
        Service::Event(config) => stampede_chassis::run("event", *config, stampede_event::build),
        Service::Coupon(config) => stampede_chassis::run("coupon", *config, stampede_coupon::build),
        Service::Inventory(config) => stampede_chassis::run("inventory", *config, stampede_inventory::build),
        Service::Order(config) => stampede_chassis::run("order", *config, stampede_order::build),
        Service::Payment(config) => stampede_chassis::run("payment", *config, stampede_payment::build),
        Service::Gateway(config) => stampede_chassis::run("gateway", *config, stampede_gateway::build),
        Service::Sandbox(config) => stampede_sandbox::run(*config),
    }
}
