//! Calls of `docker` and `docker compose`, each with a bound, in one compose project of its own.

use crate::{
    setup,
    shell::{self, Group},
    workspace::Workspace,
};
use anyhow::bail;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// From this release on the client builds images by a component of its own, buildx.
const FIRST_WITHOUT_BUILDER: u32 = 23;

/// How to reach a daemon that can run compose files.
#[derive(Debug, Clone)]
pub struct Docker {
    program: PathBuf,
    /// Compose as a program of its own, where the docker found has no plugin.
    compose: Option<PathBuf>,
}

impl Docker {
    /// Returns the first `docker` on the path that reaches a daemon, with its compose plugin or one that is fetched.
    /// Fails with a list of what is missing.
    pub fn find(workspace: &Workspace) -> anyhow::Result<Self> {
        let found = shell::find_programs("docker");
        if found.is_empty() {
            bail!("the compose test needs Docker, and there is no `docker` on the path");
        }
        let mut lacks = Vec::new();
        for program in found {
            let mut docker = Self { program, compose: None };
            match docker.check() {
                Ok(()) => {
                    docker.find_compose(workspace)?;
                    return Ok(docker);
                }
                Err(lack) => lacks.push(format!("{}: {lack:#}", docker.program.display())),
            }
        }
        bail!("the compose test needs Docker, and none will do:\n  {}", lacks.join("\n  "))
    }

    fn check(&self) -> anyhow::Result<()> {
        let client = self.output(&["version", "--format", "{{.Client.Version}}"])?;
        let old = client.split('.').next().and_then(|major| major.parse::<u32>().ok()) < Some(FIRST_WITHOUT_BUILDER);
        if !old && !shell::succeeds(self.command().args(["buildx", "version"])) {
            bail!("it cannot build images: its buildx component is missing");
        }
        Ok(())
    }

    fn find_compose(&mut self, workspace: &Workspace) -> anyhow::Result<()> {
        if !shell::succeeds(self.command().args(["compose", "version"])) {
            self.compose = Some(setup::compose(workspace)?);
        }
        Ok(())
    }

    /// `docker`, for any of its commands.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Whether an image of this name is on this machine.
    pub fn has_image(&self, image: &str) -> bool {
        shell::succeeds(self.command().args(["image", "inspect", image]))
    }

    /// Runs `docker` with these arguments, and returns its output.
    pub fn output(&self, args: &[&str]) -> anyhow::Result<String> {
        shell::quiet(self.command().args(args)).map(|said| said.trim().to_owned())
    }
}

/// One compose project, taken down with all its volumes when it is dropped.
pub struct Project {
    docker: Docker,
    folder: PathBuf,
    name: String,
    variables: BTreeMap<String, String>,
}

impl Project {
    /// A project of this name of the compose files in `folder`. The variables go before the caller's environment.
    pub fn new(docker: Docker, folder: &Path, name: String, variables: BTreeMap<String, String>) -> Self {
        Self { docker, folder: folder.to_owned(), name, variables }
    }

    /// `docker compose`, in the folder and with the variables of the project.
    pub fn compose(&self, args: &[&str]) -> Command {
        let mut command = match &self.docker.compose {
            Some(program) => Command::new(program),
            None => {
                let mut docker = self.docker.command();
                docker.arg("compose");
                docker
            }
        };
        command.current_dir(&self.folder).args(["--project-name", &self.name]).args(args);
        let of_caller = std::env::vars_os().map(|(name, _)| name);
        of_caller.filter(|name| name.to_string_lossy().starts_with("COMPOSE_")).for_each(|name| {
            command.env_remove(name);
        });
        command.envs(&self.variables);
        command
    }

    /// Runs a compose command that prints its own progress.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        shell::shown(&mut self.compose(args))
    }

    /// Runs a compose command that prints its own progress, and returns its exit code.
    pub fn exit_code(&self, args: &[&str]) -> anyhow::Result<Option<i32>> {
        Ok(Group::start(&mut self.compose(args))?.wait()?.code())
    }

    /// Runs a compose command, and returns its output.
    pub fn output(&self, args: &[&str]) -> anyhow::Result<String> {
        shell::quiet(&mut self.compose(args)).map(|said| said.trim().to_owned())
    }

    /// Waits until every container of these services is healthy.
    pub fn wait_healthy(&self, service: &str, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        let container = self.output(&["ps", "--quiet", service])?;
        loop {
            let health = self.docker.output(&["inspect", "--format", "{{.State.Health.Status}}", &container])?;
            if health == "healthy" {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{service} is {health} after {} s\n{}", within.as_secs(), self.log_tail(service));
            }
            crate::interrupt::check()?;
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns the end of a container's log.
    pub fn log_tail(&self, service: &str) -> String {
        self.output(&["logs", "--tail", "30", "--no-log-prefix", service]).unwrap_or_default()
    }

    /// Lists the containers, volumes and networks of this project.
    pub fn remains(&self) -> anyhow::Result<Vec<String>> {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let mut remains = Vec::new();
        for list in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let said = self.docker.output(&[list, &["--quiet", "--filter", &label]].concat())?;
            remains.extend(said.lines().map(|id| format!("{} {id}", list[0])));
        }
        Ok(remains)
    }

    /// Stops everything and removes its data.
    pub fn down(&self) -> anyhow::Result<()> {
        // As the README says it.
        shell::quiet(&mut self.compose(&["--profile", "demo", "down", "-v"])).map(drop)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if self.remains().is_ok_and(|remains| !remains.is_empty()) {
            // The first error is reported; leftovers are found by the project's name.
            let _left = self.down();
        }
    }
}
