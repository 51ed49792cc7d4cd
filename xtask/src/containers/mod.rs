//! `cargo xtask test compose`: the whole mesh in containers: a purchase, restarts of containers during a sale, and the
//! removal. It needs Docker; where no registry can be reached it builds stand-ins for the public images.

mod docker;
mod images;
mod purchase;

use crate::{
    containers::docker::{Docker, Project},
    ports::Ports,
    setup::{
        apt,
        requirement::{Probe, Requirement},
    },
    shell::{self, Group},
    ui::{say, seconds},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use stampede_vocab::{Process, Service};
use std::{
    collections::BTreeMap,
    fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// The name by which `cargo xtask test` knows this.
pub const NAME: &str = "compose";

/// Fails if compose does not accept the files, those that are only read here included.
const EVERY_FILE: [&str; 12] = [
    "--profile",
    "*",
    "--file",
    "compose.yaml",
    "--file",
    "compose.build.yaml",
    "--file",
    "compose.observability.yaml",
    "--file",
    "compose.load.yaml",
    "config",
    "--quiet",
];
/// The image under test.
const IMAGE: &str = "stampede:test";
/// First port that is tried for those that the containers publish.
const FIRST_PORT: u16 = 18_080;
/// The servers' containers.
const SERVERS: [&str; 3] = ["redis", "mysql", "kafka"];
/// Bytes of memory that the container of a service may have.
const MEMORY_OF_SERVICE: u64 = 63_000_000;
/// Memory of all other containers together, in bytes: with five services, all have 1.5 GB.
const MEMORY_OF_THE_REST: u64 = 1_185_000_000;
/// A container is healthy again so long after it was restarted, at most.
const BACK_TIMEOUT: Duration = Duration::from_secs(90);
/// A process ends so soon after SIGTERM, also if it still waits for its servers.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs all checks; fails at the first one that fails.
pub fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let docker = Docker::find(workspace)?;
    apt::provide(&[Requirement { what: "curl", probe: Probe::Program("curl"), packages: &["curl"] }])?;
    // Every variable of `.env`, so that none of the caller's environment overrides it.
    let mut variables = variables(workspace)?;
    images::provide(workspace, &docker, &mut variables)?;
    variables.insert("STAMPEDE_IMAGE".into(), IMAGE.into());
    // Built as the demo is: half of the time, and nothing is measured here.
    variables.insert("BUILD_PROFILE".into(), "demo".into());
    variables.insert("REVISION".into(), revision(workspace)?);
    let gateway = publish(&mut variables)?;
    let folder = workspace.root().join("deploy/compose");
    let name = format!("stampede-test-{}", std::process::id());
    let project = Project::new(docker.clone(), &folder, name, variables);

    let mut passed = 0;
    let mut step = |name: &str, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        say(&format!("\n=== {name}"));
        let started = Instant::now();
        work().with_context(|| name.to_owned())?;
        passed += 1;
        say(&format!("    {name}: ok, {}", seconds(started.elapsed())));
        anyhow::Ok(())
    };
    step("compose reads every file", &mut || project.run(&EVERY_FILE))?;
    step("build the image", &mut || project.run(&["build"]))?;
    step("stop a process that waits for its servers", &mut || stops_while_waiting(&docker))?;
    step("up --wait", &mut || project.run(&["up", "--wait", "--pull", "never"]))?;
    step("containers are fenced in", &mut || fenced(&docker, &project))?;
    step("a purchase by curl", &mut || {
        let order = purchase::buy(&project, &gateway)?;
        say(&format!("    {order} is fulfilled"));
        Ok(())
    })?;
    step("restart each container during a sale", &mut || restart_each(&project))?;
    step("the demo profile", &mut || {
        let demo = ["--profile", "demo", "up", "--pull", "never", "--exit-code-from", "audit", "audit"];
        let code = project.exit_code(&demo)?;
        ensure!(code == Some(0), "it ended with {code:?}");
        Ok(())
    })?;
    // The demo's orders have ended, but count.
    step("all containers are fenced in", &mut || fenced(&docker, &project))?;
    step("down -v leaves nothing", &mut || {
        project.down()?;
        let remains = project.remains()?;
        ensure!(remains.is_empty(), "left: {}", remains.join(", "));
        Ok(())
    })?;
    println!("\n{passed} passed, 0 failed");
    Ok(ExitCode::SUCCESS)
}

/// The commit that the image is built from.
fn revision(workspace: &Workspace) -> anyhow::Result<String> {
    let commit = shell::quiet(Command::new("git").current_dir(workspace.root()).args(["rev-parse", "HEAD"]))?;
    Ok(commit.trim().to_owned())
}

/// The variables of `.env`.
fn variables(workspace: &Workspace) -> anyhow::Result<BTreeMap<String, String>> {
    let file = workspace.root().join("deploy/compose/.env");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let assigned = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Ok(assigned.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Picks a free port for each that is published. Returns the gateway's URL.
fn publish(variables: &mut BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut ports = Ports::default();
    let mut gateway = 0;
    for name in Process::all().map(Process::name).chain(SERVERS) {
        let port = ports.pick(name, None, FIRST_PORT)?;
        if name == Process::Gateway.name() {
            gateway = port;
        }
        variables.insert(format!("{}_PORT", name.to_uppercase()), port.to_string());
    }
    Ok(format!("http://127.0.0.1:{gateway}"))
}

/// The first process of a container gets no signal without a handler, and a service sets its handlers before it has
/// servers.
fn stops_while_waiting(docker: &Docker) -> anyhow::Result<()> {
    let nowhere = "mysql://nobody:x@127.0.0.1:1/none";
    let args = ["--database-url", nowhere, "--kafka-brokers", "127.0.0.1:1", "--insecure-mesh"];
    let peers = ["--inventory-urls", "http://127.0.0.1:1", "--coupon-urls", "http://127.0.0.1:1"];
    let run = [&["run", "--detach", IMAGE, "serve", "order"], &args[..], &peers[..]].concat();
    let container = docker.output(&run)?;
    let started = Instant::now();
    let stopped = docker.output(&["stop", "--time", "30", &container]);
    let took = started.elapsed();
    let code = stopped.and_then(|_| docker.output(&["inspect", "--format", "{{.State.ExitCode}}", &container]));
    docker.output(&["rm", "--force", &container])?;
    let code = code?;
    ensure!(code == "0" && took < STOP_TIMEOUT, "it ended with {code} after {}", seconds(took));
    Ok(())
}

/// Checks that every container of ours runs unprivileged, cannot write to its root, and has a bound of memory.
fn fenced(docker: &Docker, project: &Project) -> anyhow::Result<()> {
    let format =
        "{{.Name}} {{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Memory}} {{.HostConfig.CapDrop}}";
    let mut all = 0;
    for container in project.output(&["ps", "--all", "--quiet"])?.lines() {
        let said = docker.output(&["inspect", "--format", format, container])?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let [name, user, read_only, memory, capabilities] = words[..] else {
            anyhow::bail!("a container without a user: {said}");
        };
        let server = SERVERS.iter().any(|server| name.contains(&format!("-{server}-")));
        ensure!(capabilities == "[ALL]", "{name} drops {capabilities}");
        ensure!(user != "0" && user != "root", "{name} runs as {user}");
        ensure!(server || read_only == "true", "{name} can write to its root");
        let memory: u64 = memory.parse().context("a number of bytes")?;
        ensure!(memory > 0, "{name} has no bound of memory");
        all += memory;
    }
    say(&format!("    {} MB of memory at most, all together", all / 1_000_000));
    let most = MEMORY_OF_SERVICE * Service::ALL.len() as u64 + MEMORY_OF_THE_REST;
    ensure!(all <= most, "more than {} MB", most / 1_000_000);
    Ok(())
}

/// A light sale goes on while each container is restarted in turn. The crowd tolerates transient failures; nothing
/// that was acknowledged may be lost.
fn restart_each(project: &Project) -> anyhow::Result<()> {
    let sale = project.compose(&[
        "--profile",
        "demo",
        "run",
        "--rm",
        "-T",
        "simulate",
        "simulate",
        "/usr/share/stampede/examples/restarts.toml",
        "--acknowledged",
        "/data/acknowledged.json",
    ]);
    let mut sale = sale;
    let mut crowd = Group::start(&mut sale)?;
    let processes = Process::all().map(Process::name);
    for service in processes.chain(SERVERS) {
        let started = Instant::now();
        project.output(&["restart", service])?;
        project.wait_healthy(service, BACK_TIMEOUT)?;
        say(&format!("    {service} is back after {}", seconds(started.elapsed())));
    }
    ensure!(!crowd.has_ended(), "the sale was over before the last restart");
    let code = crowd.wait()?.code();
    ensure!(code == Some(0), "the sale ended with {code:?}");
    project.run(&["--profile", "demo", "run", "--rm", "-T", "--no-deps", "audit"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::{ADMIN_PORT_OFFSET, RedisUse};

    /// Returns the part of the compose file about the container of one process.
    fn container(compose: &str, process: Process) -> &str {
        let (_, rest) = compose.split_once(&format!("\n  {process}:\n")).unwrap_or_default();
        rest.split("\n\n").next().unwrap_or_default()
    }

    /// Lists the settings that the container of one process must have.
    fn expected(process: Process) -> Vec<String> {
        let (name, port) = (process.name(), process.port());
        let published = format!("${{{}_PORT}}:{port}", name.to_uppercase());
        let mut all = vec![format!("command: [serve, {name}]"), published];
        if process != Process::Sandbox {
            all.push(format!("STAMPEDE_ADMIN_ADDR: 0.0.0.0:{}", port + ADMIN_PORT_OFFSET));
            all.push("mesh-secrets:/secrets/mesh:ro".to_owned());
        }
        if let Process::Service(service) = process {
            all.push(format!("STAMPEDE_DATABASE_URL_FILE: /secrets/database/{service}_url"));
        }
        all.extend(process.redis().map(|redis| match redis {
            RedisUse::Main => "STAMPEDE_REDIS_URL_FILE: /secrets/redis/url".to_owned(),
            RedisUse::Timers => "STAMPEDE_REDIS_URL_FILE: /secrets/redis/event_url".to_owned(),
        }));
        let url = |peer: &Service| format!("{}: dns:///{peer}:{}", peer.urls_variable(), Process::from(*peer).port());
        all.extend(process.calls().iter().map(url));
        if process == Process::Gateway {
            all.extend(Service::ALL.map(|service| format!("{service}: *when-ready")));
        }
        all
    }

    #[test]
    fn every_process_is_a_container_that_knows_its_servers_and_its_peers() {
        let file = Workspace::locate().root().join("deploy/compose/compose.yaml");
        let compose = fs::read_to_string(file).expect("it is there");
        for process in Process::all() {
            let container = container(&compose, process);
            for line in expected(process) {
                assert!(container.contains(&line), "compose.yaml has no `{line}` in {process}");
            }
        }
    }
}
