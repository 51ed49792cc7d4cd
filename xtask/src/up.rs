//! `cargo xtask up`: the whole mesh on its own servers, in the foreground.

use crate::{
    cli::{Profile, UpArgs},
    down,
    fleet::Fleet,
    launch::Tier,
    mesh::{self, Layout, Mesh, Tuning},
    ports::Ports,
    secrets::Secrets,
    servers::{ServerPorts, Servers},
    setup,
    ui::{bytes, say},
    usage,
    workspace::Workspace,
};
use std::process::ExitCode;

/// The listener of Kafka for tests is from here on, away from ports that anything else prefers.
const FIRST_TEST_LISTENER: u16 = 7_450;

/// Runs until Ctrl-C or until a child dies.
pub fn run(workspace: &Workspace, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let run = workspace.run("up");
    down::mend_before("up", &run)?;
    setup::servers(workspace, args.database)?;
    if args.servers_only {
        return run_servers(workspace, args);
    }
    let program = mesh::build(workspace, args.profile.or(Profile::Demo))?;
    let mut fleet = Fleet::open(&run)?;
    let mut ports = Ports::reserving(&args.ports)?;
    let mut server_ports = ServerPorts::preferred(&mut ports, &args.ports)?;
    server_ports.add_test_listener(&mut ports, FIRST_TEST_LISTENER)?;
    let layout = Layout::pick(&mut ports, &args.ports, &args.replicas)?;
    let secrets = Secrets::of_run(&run)?;
    let servers = Servers::start(&mut fleet, workspace, args.database, server_ports)?;
    servers.write_test_environment(fleet.run())?;
    let mesh = Mesh {
        program,
        servers: &servers,
        layout: &layout,
        secrets: &secrets,
        pay_window_ms: args.pay_window_ms,
        tuning: Tuning::default(),
    };
    mesh.prepare()?;
    mesh.start(&mut fleet)?;
    print_summary(&mesh, &fleet);
    stay(fleet)
}

fn run_servers(workspace: &Workspace, args: &UpArgs) -> anyhow::Result<ExitCode> {
    let mut fleet = Fleet::open(&workspace.run("up"))?;
    let mut free = Ports::reserving(&args.ports)?;
    let mut ports = ServerPorts::preferred(&mut free, &args.ports)?;
    ports.add_test_listener(&mut free, FIRST_TEST_LISTENER)?;
    let servers = Servers::start(&mut fleet, workspace, args.database, ports)?;
    servers.write_test_environment(fleet.run())?;
    print_servers(&servers, &fleet);
    say("\nIn another shell: cargo xtask test -p CRATE [NAME] --up");
    stay(fleet)
}

/// Prints the addresses of the mesh, and its memory.
pub fn print_summary(mesh: &Mesh<'_>, fleet: &Fleet) {
    println!("\n  {:<12} {}", "buyers", mesh.layout.gateway_url());
    for line in mesh.layout.lines() {
        println!("  {line}");
    }
    println!("  {:<12} {}", "sandbox", mesh.layout.provider_url());
    print_servers(mesh.servers, fleet);
    mesh.print_hints(fleet);
}

fn print_servers(servers: &Servers, fleet: &Fleet) {
    println!("  {:<12} {}", "redis", servers.admin_redis_url());
    println!("  {:<12} {}", "database", servers.database_url());
    println!("  {:<12} {}", "kafka", servers.kafka_brokers());
    println!("  {:<12} {}", "data, logs", fleet.run().display());
    println!("  {:<12} {}", "memory", memory(fleet));
    println!("  {:<12} {}", "disk", bytes(usage::disk(fleet.run())));
}

/// Returns the memory of the product's own processes, if any run, and of the servers.
fn memory(fleet: &Fleet) -> String {
    let resident = |tiers: &[Tier]| bytes(usage::resident(&fleet.pids(tiers)));
    let product = [Tier::Service, Tier::Gateway];
    if fleet.pids(&product).is_empty() {
        return resident(&[Tier::Server]);
    }
    format!(
        "{} in services and gateway, {} in servers and sandbox",
        resident(&product),
        resident(&[Tier::Server, Tier::Provider])
    )
}

/// Watches until the end, then stops everything in order.
pub fn stay(mut fleet: Fleet) -> anyhow::Result<ExitCode> {
    say("\nCtrl-C stops everything.");
    let ending = fleet.watch();
    say("\nstopping");
    Servers::remove_test_environment(fleet.run())?;
    fleet.stop();
    ending.map(|()| ExitCode::SUCCESS)
}
