//! The mesh that the load is put on: one that is started for it, or one that runs already.

use crate::{
    bench::{RUN, costs::Spent, metrics},
    cli::{LoadArgs, Profile},
    down,
    fleet::Fleet,
    mesh::{self, Layout, Own},
    replicas::Replicas,
    secrets::{self, Secrets},
    setup,
    ui::say,
    usage,
    workspace::Workspace,
};
use anyhow::Context;
use stampede_vocab::{Process, Service};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Payment window of an order beyond the duration of a plan: it does not expire while it is measured, and the audit
/// does not wait long for its end.
const PAY_WINDOW_MARGIN_MS: u64 = 10_000;

/// Age of the gauge of open orders at most: a little more than it is measured each.
const GAUGE_AGE: Duration = Duration::from_secs(6);
/// Longest time to expire all orders of a plan, from the deadline of the last one.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(300);

/// The mesh under load, and its measurements.
pub struct Stage {
    program: PathBuf,
    gateway: String,
    secrets: Option<Secrets>,
    place: Place,
}

enum Place {
    /// A mesh of this run: all of it can be measured.
    Own(Layout),
    /// A mesh elsewhere, of which only the addresses are known.
    Named { host: String },
}

/// Fails early, before anything is fetched or built: for a named mesh without its secret, and for a second bench.
pub fn check(workspace: &Workspace, load: &LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        load.target.is_none() || std::env::var_os("STAMPEDE_AUTH_SECRET").is_some(),
        "--target needs STAMPEDE_AUTH_SECRET, which the gateway there trusts: `. .stampede/up/secrets.env` beside an `up`"
    );
    down::mend_before("bench", &workspace.run(RUN))
}

/// Starts a mesh or uses the named one, does the work on it, audits it, and stops the processes that it started. The
/// work returns whether it succeeded.
pub fn with(
    workspace: &Workspace,
    load: &LoadArgs,
    work: impl FnOnce(&Stage, &mut Fleet) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    match &load.target {
        Some(target) => on_named(workspace, load, target, work),
        None => on_own(workspace, load, work),
    }
}

fn on_named(
    workspace: &Workspace,
    load: &LoadArgs,
    target: &str,
    work: impl FnOnce(&Stage, &mut Fleet) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    setup::compiler()?;
    let program = mesh::build(workspace, load.profile.or(Profile::Release))?;
    let (host, _) = target.rsplit_once(':').context("the target has a port")?;
    let place = Place::Named { host: host.to_owned() };
    let stage = Stage { program, gateway: target.to_owned(), secrets: None, place };
    let mut fleet = Fleet::open(&workspace.run(RUN))?;
    let good = work(&stage, &mut fleet)?;
    if std::env::var_os("STAMPEDE_ADMIN_DATABASE_URL").is_none() {
        say(
            "\nno audit: it needs STAMPEDE_ADMIN_DATABASE_URL and the addresses of the other servers in the environment",
        );
        return Ok(good);
    }
    let mut audit = stage.operator();
    audit.arg("audit");
    Ok(audited(&mut fleet, audit)? && good)
}

fn on_own(
    workspace: &Workspace,
    load: &LoadArgs,
    work: impl FnOnce(&Stage, &mut Fleet) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let own = Own {
        run: &workspace.run(RUN),
        database: load.database,
        profile: load.profile.or(Profile::Release),
        replicas: Replicas::default(),
        pay_window_ms: Some(pay_window_ms(load.seconds)),
    };
    own.with(workspace, |mesh, fleet| {
        let stage = Stage {
            program: mesh.program.clone(),
            gateway: mesh.layout.gateway_url().trim_start_matches("http://").to_owned(),
            secrets: Some(mesh.secrets.clone()),
            place: Place::Own(mesh.layout.clone()),
        };
        let good = work(&stage, fleet)?;
        let kept = audited(fleet, mesh.audit(None))?;
        Ok(kept && good)
    })
}

/// How long an order may be paid while plans of so many seconds are played.
fn pay_window_ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000 + PAY_WINDOW_MARGIN_MS
}

fn audited(fleet: &mut Fleet, command: Command) -> anyhow::Result<bool> {
    say("");
    match fleet.run_command(command)?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => anyhow::bail!("stampede audit could not do its work"),
    }
}

impl Stage {
    /// The gateway, HOST:PORT.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// A service's gRPC, HOST:PORT.
    pub fn service(&self, service: Service) -> String {
        match &self.place {
            Place::Own(layout) => layout.urls(service).trim_start_matches("http://").to_owned(),
            Place::Named { host } => format!("{host}:{}", Process::from(service).port()),
        }
    }

    /// The operator's command on this mesh.
    pub fn operator(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
        command.env("STAMPEDE_GATEWAY_URL", format!("http://{}", self.gateway));
        if let Some(secrets) = &self.secrets {
            command.env(secrets::AUTH, &secrets.auth).env(secrets::MESH, &secrets.mesh);
        }
        command
    }

    /// Counts the answers to `method` so far; `None` where the metrics of the service cannot be read.
    pub fn outcomes(&self, service: Service, method: &str) -> anyhow::Result<Option<metrics::Outcomes>> {
        self.admins(service).map(|admins| metrics::outcomes(&admins, method)).transpose()
    }

    /// Waits until every order of a plan of so many seconds has ended, so that their expiry is in no figure of the next
    /// plan. Does not wait where the metrics cannot be read.
    pub fn until_orders_have_ended(&self, seconds: u32) -> anyhow::Result<()> {
        let Some(admins) = self.admins(Service::Order) else { return Ok(()) };
        // Or the gauge may be of before the plan.
        thread::sleep(GAUGE_AGE);
        let began = Instant::now();
        let timeout = Duration::from_millis(pay_window_ms(seconds)) + EXPIRY_TIMEOUT;
        while metrics::gauge(&admins, "stampede_orders_open")? > 0.0 {
            anyhow::ensure!(began.elapsed() < timeout, "the orders of the plan have not ended after {timeout:?}");
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Where the metrics of a service are read; `None` for a mesh that is not ours.
    fn admins(&self, service: Service) -> Option<Vec<SocketAddr>> {
        let Place::Own(layout) = &self.place else { return None };
        let admin = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Some(layout.of(service).map(|instance| admin(instance.admin_port)).collect())
    }
}

/// Returns the resources that each process of the mesh and each server has used so far; none where they are not ours.
pub fn spent(fleet: &Fleet) -> Spent {
    Spent::now(&fleet.processes())
}

/// The memory of each process and server now, in bytes.
pub fn memory(fleet: &Fleet) -> Vec<(String, u64)> {
    fleet.processes().into_iter().map(|(name, pid)| (name, usage::resident(&[pid]))).collect()
}
