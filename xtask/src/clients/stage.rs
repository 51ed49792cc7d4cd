//! The mesh that the stories are told to: started for them alone, and stopped after the last one.

use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cli::{Database, Profile};
use crate::down;
use crate::fleet::{Beside, Fleet, TICK};
use crate::mesh::Own;
use crate::replicas::Replicas;
use crate::ui::say;
use crate::workspace::{Workspace, remove_directory};

/// A story takes some seconds; a busy machine is slower.
const STORY_TIMEOUT: Duration = Duration::from_secs(120);

/// What a story has to know.
pub struct Stage {
    gateway_url: String,
    operator_token: String,
}

/// Starts servers and a mesh, does the work on it, and stops everything. The work returns whether all went as it
/// should; the logs of a run in which it did not are kept.
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
    /// Runs a story, which shows itself. Fails if a check of it did not hold, or it came to no end.
    pub fn tell(&self, fleet: &mut Fleet, mut story: Command) -> anyhow::Result<()> {
        story.env("STAMPEDE_URL", &self.gateway_url).env("STAMPEDE_OPERATOR_TOKEN", &self.operator_token);
        let status = to_its_end(fleet, story)?;
        ensure!(status.success(), "the story failed ({status})");
        Ok(())
    }
}

/// Waits for the end of a command. Any child's death, Ctrl-C and the deadline end it before.
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
