//! The gateway's laboratory: the gateway, a bare gRPC handler behind it, and beside it a bare HTTP handler and a bare
//! hop. Each has one thread.

use crate::{
    cli::Profile,
    fleet::Fleet,
    identity::Identity,
    launch::{Launch, Tier},
    mesh,
    ports::Ports,
    probe,
    secrets::{self, Secrets},
    servers, shell,
    ui::Step,
    workspace::Workspace,
};
use stampede_vocab::{Process, Service};
use std::{
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// First port that is tried.
const FIRST_PORT: u16 = 7_600;
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The names of the processes.
pub const BACKEND: &str = "backend";
pub const HANDLER: &str = "handler";
pub const HOP: &str = "hop";
pub const GATEWAY: &str = "gateway";

pub struct Programs {
    stampede: PathBuf,
    parts: PathBuf,
}

/// The running laboratory.
pub struct Laboratory {
    pub handler: u16,
    pub hop: u16,
    pub gateway: u16,
    /// The access token of a buyer.
    pub token: String,
}

impl Programs {
    /// Builds them. Cargo shows its own progress.
    pub fn build(workspace: &Workspace, profile: Profile) -> anyhow::Result<Self> {
        let stampede = mesh::build(workspace, profile)?;
        let mut cargo = shell::cargo(workspace.root());
        cargo.args(["build", "--package", "stampede-gateway", "--example", "laboratory"]);
        shell::shown(cargo.args(["--profile", profile.cargo_name()]))?;
        let parts = workspace.binaries(profile.directory()).join("examples/laboratory");
        Ok(Self { stampede, parts })
    }
}

impl Laboratory {
    /// Starts all of it, and returns when each part takes connections and the gateway is ready.
    pub fn start(fleet: &mut Fleet, workspace: &Workspace, programs: &Programs) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let mut port = |what: &str| ports.pick(what, None, FIRST_PORT);
        let (redis, backend, handler) = (port("Redis")?, port(BACKEND)?, port(HANDLER)?);
        let (hop, gateway, admin) = (port(HOP)?, port(GATEWAY)?, port("the gateway's admin side")?);
        let redis_url = servers::start_redis(fleet, workspace, redis)?;
        let step = Step::begin("laboratory", "starting");
        let at = |port: u16| format!("127.0.0.1:{port}");
        for (name, args, port) in [
            (BACKEND, vec![BACKEND.to_owned(), at(backend)], backend),
            (HANDLER, vec![HANDLER.to_owned(), at(handler)], handler),
            (HOP, vec![HOP.to_owned(), at(hop), at(backend)], hop),
        ] {
            fleet.start(launch(name, Tier::Service, &programs.parts, args))?;
            fleet.wait_ready(name, READY_TIMEOUT, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        }
        let secrets = Secrets::of_run(fleet.run())?;
        let mut process = launch(GATEWAY, Tier::Gateway, &programs.stampede, vec!["serve".into(), GATEWAY.into()]);
        process.env = vec![
            ("STAMPEDE_LISTEN_ADDR".to_owned(), at(gateway)),
            ("STAMPEDE_ADMIN_ADDR".to_owned(), at(admin)),
            ("STAMPEDE_REDIS_URL".to_owned(), redis_url),
            (secrets::AUTH.to_owned(), secrets.auth.clone()),
            (secrets::MESH.to_owned(), secrets.mesh.clone()),
            ("STAMPEDE_WORKER_THREADS".to_owned(), "1".to_owned()),
            // One buyer at one address makes all the claims. The limits are too high to be reached, and their cost is
            // included.
            ("STAMPEDE_ADDRESS_SHARE_PERCENT".to_owned(), "100".to_owned()),
            ("STAMPEDE_ACT_LIMITS_FACTOR".to_owned(), "1000000".to_owned()),
            ("STAMPEDE_MAX_IN_FLIGHT_OF_USER".to_owned(), "8192".to_owned()),
        ];
        let backend_url = format!("http://{}", at(backend));
        process.env.extend(Service::ALL.map(|service| (service.urls_variable(), backend_url.clone())));
        fleet.start(process)?;
        fleet.wait_ready(GATEWAY, READY_TIMEOUT, || probe::http_ready(admin))?;
        let token = token(programs, &secrets)?;
        step.done(&format!("{} on {}", Process::Gateway, at(gateway)));
        Ok(Self { handler, hop, gateway, token })
    }
}

fn launch(name: &str, tier: Tier, program: &Path, args: Vec<String>) -> Launch {
    Launch {
        name: name.to_owned(),
        tier,
        program: program.to_owned(),
        args: args.into_iter().map(Into::into).collect(),
        env: Vec::new(),
        identity: Identity::Own,
        stop_timeout: STOP_TIMEOUT,
    }
}

fn token(programs: &Programs, secrets: &Secrets) -> anyhow::Result<String> {
    let mut command = Command::new(&programs.stampede);
    command.args(["token", "--role", "buyer"]).env(secrets::AUTH, &secrets.auth);
    Ok(shell::quiet(&mut command)?.trim().to_owned())
}
