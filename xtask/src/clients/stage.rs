//! The mesh that the clients call: started for them alone, and stopped after the last one.

use crate::{
    cli::{Database, Profile},
    down,
    fleet::{Beside, Fleet, TICK},
    mesh::Own,
    replicas::Replicas,
    ui::say,
    workspace::{Workspace, remove_directory},
};
use anyhow::{Context, ensure};
use std::{
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// Longest run of one client: it takes some seconds, more on a busy machine.
const STORY_TIMEOUT: Duration = Duration::from_secs(120);

/// Address of the mesh, and an operator's token.
pub struct Stage {
    gateway_url: String,
    operator_token: String,
}

/// Starts servers and a mesh, does the work on it, and stops everything. The work returns whether it succeeded; the
/// logs of a failed run are kept.
pub fn with(
    workspace: &Workspace,
    database: Database,
    work: impl FnOnce(&Stage, &mut Fleet) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    down::mend_tests(workspace)?;
    let run = workspace.run("test").join(std::process::id().to_string());
    let profile = Profile::Dev;
    let own = Own { run: &run, database, profile, replicas: Replicas::default(), pay_window_ms: None };
    let good = own.with(workspace, |mesh, fleet| {
        let stage = Stage { gateway_url: mesh.layout.gateway_url(), operator_token: mesh.token("operator")? };
        work(&stage, fleet)
    })?;
    if good {
        return remove_directory(&run);
    }
    say(&format!("the logs of the processes are kept in {}", run.join("logs").display()));
    Ok(())
}

impl Stage {
    /// Runs a client, which prints its own progress. Fails if one of its checks fails, or it does not end in time.
    pub fn run(&self, fleet: &mut Fleet, mut story: Command) -> anyhow::Result<()> {
        story.env("STAMPEDE_URL", &self.gateway_url).env("STAMPEDE_OPERATOR_TOKEN", &self.operator_token);
        let status = to_its_end(fleet, story)?;
        ensure!(status.success(), "the story failed ({status})");
        Ok(())
    }
}

/// Waits for the end of a command. Stops it, and fails, on the death of any child, on Ctrl-C and at the deadline.
fn to_its_end(fleet: &mut Fleet, story: Command) -> anyhow::Result<ExitStatus> {
    let mut beside = Beside::start(story)?;
    let deadline = Instant::now() + STORY_TIMEOUT;
    loop {
        let ended = beside.ended()?;
        fleet.check().context("the mesh does not run any more")?;
        if let Some(status) = ended {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "the story did not end within {} s", STORY_TIMEOUT.as_secs());
        thread::sleep(TICK);
    }
}
