//! `cargo xtask test openapi`: schemathesis sends valid and invalid requests by the description to a mesh of its own,
//! and fails for an answer that is not described.

use crate::{
    cli::{Database, Profile},
    down,
    mesh::{Mesh, Own},
    replicas::Replicas,
    setup,
    ui::say,
    workspace::Workspace,
};
use std::{
    path::Path,
    process::{Command, ExitCode},
};

/// The name by which `cargo xtask test` knows this.
pub const NAME: &str = "openapi";
/// The directory of a run, under `.stampede/`.
pub const RUN: &str = "openapi";

/// The exceptions, each with its reason; from the root of the repository.
const EXCEPTIONS: &str = "xtask/src/openapi/schemathesis.toml";
/// The variable in which that file expects the token.
const TOKEN: &str = "STAMPEDE_TRIAL_TOKEN";
/// Bounds of the run of one role.
const MOST_SECONDS: &str = "120";
const MOST_EXAMPLES: &str = "30";
/// The same requests each time.
const SEED: &str = "1";

/// Starts a mesh, tests it as an operator and as a buyer, and stops it.
pub fn run(workspace: &Workspace, database: Database) -> anyhow::Result<ExitCode> {
    let run = workspace.run(RUN);
    down::mend_before("test openapi", &run)?;
    let schemathesis = setup::tools::schemathesis(workspace)?;
    let profile = Profile::Demo;
    let own = Own { run: &run, database, profile, replicas: Replicas::default(), pay_window_ms: None };
    let failed = own.with(workspace, |mesh, fleet| {
        let mut failed = Vec::new();
        for role in ["operator", "buyer"] {
            say(&format!("\n=== as {role}"));
            let trial = trial(workspace, &schemathesis, mesh, role)?;
            if !fleet.run_command(trial)?.success() {
                failed.push(role);
            }
        }
        Ok(failed)
    })?;
    if failed.is_empty() {
        say("\nevery answer is one that is described");
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("\nnot as described, as {}; logs are in {}", failed.join(" and as "), run.join("logs").display()));
    Ok(ExitCode::FAILURE)
}

/// Sends the requests of one role. The tool's files lie in the directory of the run.
fn trial(workspace: &Workspace, schemathesis: &Path, mesh: &Mesh<'_>, role: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(schemathesis);
    command.arg("--config-file").arg(workspace.root().join(EXCEPTIONS));
    command.arg("run").arg(format!("{}/openapi.json", mesh.layout.gateway_url()));
    command.args(["--max-time", MOST_SECONDS, "--max-examples", MOST_EXAMPLES, "--seed", SEED, "--workers", "1"]);
    command.env(TOKEN, mesh.token(role)?).current_dir(workspace.run(RUN));
    Ok(command)
}
