//! `cargo xtask demo`: a whole sale through a fresh mesh, and the proof that its promises held.

use crate::{
    bench::costs::Spent,
    cli::{DemoArgs, Profile},
    down,
    fleet::Fleet,
    launch::Tier,
    mesh::{self, Layout, Mesh, Tuning},
    ports::Ports,
    secrets::Secrets,
    servers::{ServerPorts, Servers},
    setup,
    ui::{bytes, say, seconds},
    up, usage,
    workspace::{Workspace, remove_directory},
};
use stampede_sale::Sale;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// Plays the sale and audits it; non-zero when either finds a fault.
pub fn run(workspace: &Workspace, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let mut phases = Phases::default();
    let run = workspace.run("demo");
    let sale = sale_file(workspace, &args.sale);
    // Read before anything is built or started, so that a mistake in it is reported at once.
    let pay_window_ms = pay_window_ms(&Sale::load(&sale)?);
    down::mend_before("demo", &run)?;
    phases.time("setup", || setup::servers(workspace, args.database))?;
    let program = phases.time("build", || mesh::build(workspace, args.profile.or(Profile::Demo)))?;
    remove_directory(&run)?;
    let mut fleet = Fleet::open(&run)?;
    let mut ports = Ports::reserving(&args.ports)?;
    let server_ports = ServerPorts::preferred(&mut ports, &args.ports)?;
    let layout = Layout::pick(&mut ports, &args.ports, &args.replicas)?;
    let servers = phases.time("servers", || Servers::start(&mut fleet, workspace, args.database, server_ports))?;
    let secrets = Secrets::of_run(&run)?;
    let mesh = Mesh {
        program,
        servers: &servers,
        layout: &layout,
        secrets: &secrets,
        pay_window_ms,
        tuning: Tuning::default(),
    };
    phases.time("mesh", || mesh.prepare().and_then(|()| mesh.start(&mut fleet)))?;

    let acknowledged = run.join("acknowledged.json");
    let before = Spent::now(&fleet.processes());
    let sold =
        phases.time("simulate", || play(&mut fleet, "simulate", simulation(&mesh, &sale, &acknowledged, args)))?;
    let spent = Spent::now(&fleet.processes()).since(&before);
    let memory = usage::resident(&fleet.pids(&[Tier::Service, Tier::Gateway]));
    say(&format!("\n  memory       {} in the services and the gateway together", bytes(memory)));
    print_processor_time(&spent);
    let kept = phases.time("audit", || play(&mut fleet, "audit", mesh.audit(Some(&acknowledged))))?;
    phases.print();

    let verdict = if sold && kept { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if args.keep {
        up::print_summary(&mesh, &fleet);
        up::stay(fleet)?;
        return Ok(verdict);
    }
    phases.time("down", || fleet.stop());
    say(&format!("  stopped      data and logs are in {}", run.display()));
    Ok(verdict)
}

/// Prints the processor time of each process and server, most first.
fn print_processor_time(spent: &BTreeMap<String, Duration>) {
    let mut by_time: Vec<_> = spent.iter().collect();
    by_time.sort_by_key(|(_, time)| Reverse(**time));
    let parts: Vec<String> = by_time.iter().map(|(name, time)| format!("{name} {}", seconds(**time))).collect();
    say(&format!("  processor    {}", parts.join(", ")));
}

/// Resolves the file of the sale: a named one from the working directory, the default one from the workspace.
fn sale_file(workspace: &Workspace, named: &Path) -> PathBuf {
    if named.exists() { named.to_owned() } else { workspace.root().join(named) }
}

/// Returns the payment window of the sale, which the mesh is configured with.
pub fn pay_window_ms(sale: &Sale) -> Option<u64> {
    sale.pay_window_ms.as_ref().map(|window| u64::from(window.get_ref().get()))
}

fn simulation(mesh: &Mesh<'_>, sale: &Path, acknowledged: &Path, args: &DemoArgs) -> Command {
    let mut command = mesh.simulate(sale);
    command.arg("--acknowledged").arg(acknowledged);
    if let Some(buyers) = args.buyers {
        command.args(["--buyers", &buyers.to_string()]);
    }
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    command
}

/// Runs a command of `stampede` that prints its own progress, and supervises the fleet meanwhile. Returns false if the
/// command found a fault; fails if it could not run, for the reason that it has printed.
fn play(fleet: &mut Fleet, name: &str, command: Command) -> anyhow::Result<bool> {
    say("");
    match fleet.run_command(command)?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => anyhow::bail!("stampede {name} could not do its work"),
    }
}

#[derive(Default)]
struct Phases {
    taken: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.taken.push((name, started.elapsed()));
        result
    }

    fn print(&self) {
        let parts: Vec<String> = self.taken.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
        say(&format!("  took         {}", parts.join(", ")));
    }
}
