//! `stampede`, the one program: every process of the mesh, and the operator's commands.
//!
//! `stampede serve order` runs a process; `stampede help` lists all commands, and the help of each has an example.

mod cli;
mod secret_files;
mod serve;

use cli::{Cli, Command};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { format, command } = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return cli::not_understood(&error),
    };
    match command {
        Command::Serve { process } => process.run(),
        Command::Operator(command) => stampede_cli::run(*command, format),
        Command::Openapi => cli::print_openapi(),
        Command::Completions { shell } => cli::print_completions(shell),
    }
}
