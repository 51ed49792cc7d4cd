//! The gateway's laboratory: the gateway, a bare gRPC handler behind it, and beside it a bare HTTP handler and a bare
//! hop; and a gRPC handler within the layers of a service, behind another gateway. Each has one thread.

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
pub const SERVICE: &str = "service";
pub const GATEWAY: &str = "gateway";
/// The gateway in front of the service.
pub const TO_SERVICE: &str = "gateway-to-service";

pub struct Programs {
    stampede: PathBuf,
    parts: PathBuf,
}

pub struct Laboratory {
    pub handler: u16,
    pub hop: u16,
    pub gateway: u16,
    pub to_service: u16,
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
    /// Starts all of it, and returns when each part takes connections and the gateways are ready.
    pub fn start(fleet: &mut Fleet, workspace: &Workspace, programs: &Programs) -> anyhow::Result<Self> {
        let mut ports = Ports::default();
        let mut port = |what: &str| ports.pick(what, None, FIRST_PORT);
        let (redis, backend, handler, hop) = (port("Redis")?, port(BACKEND)?, port(HANDLER)?, port(HOP)?);
        let (service, service_admin) = (port(SERVICE)?, port("the service's admin side")?);
        let (gateway, admin) = (port(GATEWAY)?, port("the gateway's admin side")?);
        let (to_service, to_service_admin) = (port(TO_SERVICE)?, port("the other gateway's admin side")?);
        let redis_url = servers::start_redis(fleet, workspace, redis)?;
        let step = Step::begin("laboratory", "starting");
        for (name, args, port) in [
            (BACKEND, vec![BACKEND.to_owned(), at(backend)], backend),
            (HANDLER, vec![HANDLER.to_owned(), at(handler)], handler),
            (HOP, vec![HOP.to_owned(), at(hop), at(backend)], hop),
        ] {
            fleet.start(launch(name, Tier::Service, &programs.parts, args))?;
            fleet.wait_ready(name, READY_TIMEOUT, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        }
        let secrets = Secrets::of_run(fleet.run())?;
        let parts = MeshParts { programs, secrets: &secrets, redis_url: &redis_url };
        start_ready(fleet, parts.service((service, service_admin)), service_admin)?;
        start_ready(fleet, parts.gateway(GATEWAY, (gateway, admin), backend), admin)?;
        let other = parts.gateway(TO_SERVICE, (to_service, to_service_admin), service);
        start_ready(fleet, other, to_service_admin)?;
        let token = token(programs, &secrets)?;
        step.done(&format!("{} on {}", Process::Gateway, at(gateway)));
        Ok(Self { handler, hop, gateway, to_service, token })
    }
}

/// Makes the processes that are of a mesh.
struct MeshParts<'a> {
    programs: &'a Programs,
    secrets: &'a Secrets,
    redis_url: &'a str,
}

impl MeshParts<'_> {
    /// Returns the handler within the layers of a service, on a port of its own and an admin port.
    fn service(&self, (port, admin): (u16, u16)) -> Launch {
        let mut process = launch(SERVICE, Tier::Service, &self.programs.parts, vec![SERVICE.to_owned()]);
        process.env = vec![
            ("STAMPEDE_LISTEN_ADDR".to_owned(), at(port)),
            ("STAMPEDE_ADMIN_ADDR".to_owned(), at(admin)),
            (secrets::MESH.to_owned(), self.secrets.mesh.clone()),
            ("STAMPEDE_WORKER_THREADS".to_owned(), "1".to_owned()),
        ];
        process
    }

    /// Returns a gateway on such ports, with all services at this one.
    fn gateway(&self, name: &str, (port, admin): (u16, u16), backend: u16) -> Launch {
        let args = vec!["serve".to_owned(), GATEWAY.to_owned()];
        let mut process = launch(name, Tier::Gateway, &self.programs.stampede, args);
        process.env = vec![
            ("STAMPEDE_LISTEN_ADDR".to_owned(), at(port)),
            ("STAMPEDE_ADMIN_ADDR".to_owned(), at(admin)),
            ("STAMPEDE_REDIS_URL".to_owned(), self.redis_url.to_owned()),
            (secrets::AUTH.to_owned(), self.secrets.auth.clone()),
            (secrets::MESH.to_owned(), self.secrets.mesh.clone()),
            ("STAMPEDE_WORKER_THREADS".to_owned(), "1".to_owned()),
            // One buyer at one address makes all the claims. The limits are too high to be reached, and their cost is
            // included.
            ("STAMPEDE_ADDRESS_SHARE_PERCENT".to_owned(), "100".to_owned()),
            ("STAMPEDE_ACT_LIMITS_FACTOR".to_owned(), "1000000".to_owned()),
            ("STAMPEDE_MAX_IN_FLIGHT_OF_USER".to_owned(), "8192".to_owned()),
        ];
        let backend_url = format!("http://{}", at(backend));
        process.env.extend(Service::ALL.map(|service| (service.urls_variable(), backend_url.clone())));
        process
    }
}

/// Starts a process, and returns when it is ready.
fn start_ready(fleet: &mut Fleet, process: Launch, admin: u16) -> anyhow::Result<()> {
    let name = process.name.clone();
    fleet.start(process)?;
    fleet.wait_ready(&name, READY_TIMEOUT, || probe::http_ready(admin))
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
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
