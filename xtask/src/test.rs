//! `cargo xtask test`: every check there is, on servers and ports of its own, so that it may run next to an `up`.
//!
//! Clippy's driver compiles the tests, so that one pass compiles and lints. It is rustc, without some optimisations of
//! its intermediate representation.

use crate::{
    chaos,
    cli::{Database, RedisKind, TestArgs},
    clients,
    clippy::{self, Warnings},
    containers,
    counts::Counts,
    down,
    fleet::Fleet,
    h2spec, lint, openapi,
    ports::Ports,
    servers::{ServerPorts, Servers},
    setup,
    shell::{self, Group},
    ui::{say, seconds},
    workspace::{Workspace, remove_directory},
};
use anyhow::{Context, bail};
use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The crate that starts servers and processes for tests.
const TESTKIT: &str = "stampede-testkit";
/// Test servers listen from here on, below the ports that the kernel gives to clients.
const FIRST_PORT: u16 = 20_000;
/// Each process id has a block of ports, so that two runs rarely try the same ones.
const BLOCKS: u32 = 500;
const PORTS_PER_BLOCK: u32 = 20;

/// How many tests run at a time; that of cargo test.
const TEST_THREADS: &str = "RUST_TEST_THREADS";

/// Runs everything, or the tests of one crate or whose name contains the one given. A step that fails does not keep the
/// next from running.
pub fn run(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    match args.name.as_deref() {
        Some(containers::NAME) => return test_containers(workspace, args),
        Some(clients::NAME) => return test_clients(workspace, args),
        _ => {}
    }
    if args.name.as_deref() == Some(openapi::NAME) && args.package.is_none() {
        if args.up || args.redis != RedisKind::Server {
            bail!("`test openapi` has a mesh of its own: it takes neither --up nor --redis");
        }
        return openapi::run(workspace, args.database);
    }
    down::mend_tests(workspace)?;
    if args.name.as_deref() == Some(h2spec::NAME) {
        if args.package.is_some() || args.up {
            bail!("`test h2spec` has servers of its own: it takes neither --package nor --up");
        }
        return h2spec::run(workspace);
    }
    let mut report = Report::default();
    let needs = Needs::of(workspace, args)?;
    let all = args.name.is_none() && args.package.is_none();
    if all {
        setup::everything(workspace, args.database)?;
        for (name, check) in lint::QUICK_CHECKS {
            report.step(name, || check(workspace));
        }
    } else if needs == Needs::Servers {
        setup::servers(workspace, args.database)?;
    }
    let mut counts = Counts::default();
    let mut warnings = Warnings::default();
    let built = report.step("build", || build(workspace, args, needs, &mut warnings));
    if built && all {
        report.step("clippy", || warnings.judge());
    }
    if built {
        report.step("tests", || match needs {
            Needs::Nothing => run_tests(workspace, args, [], &mut counts),
            Needs::RunningServers => on_up(workspace, args, &mut counts),
            Needs::Servers => on_own(workspace, args, &mut counts),
        });
    }
    // It has servers of its own, of which Redis is one.
    if built && all && needs == Needs::Servers && args.redis == RedisKind::Server {
        report.step("chaos", || chaos::check(workspace, args.database));
    }
    report.print();
    println!("{} passed, {} failed", counts.passed, counts.failed);
    Ok(if report.all_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test_containers(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let on_servers = args.up || args.database != Database::Mysql || args.redis != RedisKind::Server;
    if args.package.is_some() || on_servers {
        bail!(
            "`test compose` tests the containers as they are: it takes neither --package nor --up nor --database \
             nor --redis"
        );
    }
    containers::run(workspace)
}

fn test_clients(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    if args.package.is_some() || args.up || args.redis != RedisKind::Server {
        bail!("`test clients` has a mesh of its own: it takes neither --package nor --up nor --redis");
    }
    clients::test(workspace, args.database)
}

/// The dependencies of a set of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Neither servers nor the program.
    Nothing,
    /// The servers of a running `up`, and the program.
    RunningServers,
    /// Servers of their own, and the program.
    Servers,
}

impl Needs {
    fn of(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<Self> {
        let package = args.package.as_deref().map(package_name);
        let pure = match package {
            Some(package) => args.lib || !uses_testkit(workspace, &package)?,
            None => false,
        };
        Ok(match pure {
            true => Self::Nothing,
            false if args.up => Self::RunningServers,
            false => Self::Servers,
        })
    }
}

/// Cargo's name of a crate that is named with or without `stampede-`.
fn package_name(named: &str) -> String {
    if named == "xtask" || named.starts_with("stampede") { named.to_owned() } else { format!("stampede-{named}") }
}

/// Whether the tests of a crate start servers or processes. Fails for a crate that does not exist.
fn uses_testkit(workspace: &Workspace, package: &str) -> anyhow::Result<bool> {
    let mut cargo = shell::cargo(workspace.root());
    let metadata = shell::quiet(cargo.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let named = |value: &serde_json::Value, name: &str| value["name"] == name;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let package = packages
        .iter()
        .find(|found| named(found, package))
        .with_context(|| format!("--package: there is no crate {package} in this workspace"))?;
    let dependencies = package["dependencies"].as_array().context("cargo metadata names no dependencies")?;
    Ok(named(package, TESTKIT) || dependencies.iter().any(|dependency| named(dependency, TESTKIT)))
}

/// Builds the tests, and the program that they run; collects clippy's warnings. With the whole workspace both are built
/// at once: a build of the program alone would choose other features of the dependencies, and compile them all twice.
fn build(workspace: &Workspace, args: &TestArgs, needs: Needs, warnings: &mut Warnings) -> anyhow::Result<()> {
    if args.name.is_none() && args.package.is_none() {
        // `cargo test` would compile programs and examples as tests alone, and clippy not see them as they are run.
        return clippy::build(clippy::cargo(workspace).args(["build", "--workspace", "--all-targets"]), warnings);
    }
    if args.package.is_some() && needs != Needs::Nothing {
        clippy::build(clippy::cargo(workspace).args(["build", "--package", "stampede"]), warnings)?;
    }
    clippy::build(cargo_test(workspace, args).arg("--no-run"), warnings)
}

/// Builds the `cargo test` command for the given selection.
fn cargo_test(workspace: &Workspace, args: &TestArgs) -> Command {
    let mut cargo = clippy::cargo(workspace);
    cargo.arg("test");
    match &args.package {
        Some(package) => cargo.arg("--package").arg(package_name(package)),
        None => cargo.arg("--workspace"),
    };
    if args.lib {
        let is_program = args.package.as_deref() == Some("xtask");
        cargo.arg(if is_program { "--bins" } else { "--lib" });
    }
    cargo
}

/// Runs the tests on servers of their own.
fn on_own(workspace: &Workspace, args: &TestArgs, counts: &mut Counts) -> anyhow::Result<()> {
    let id = std::process::id();
    let run = workspace.run("test").join(id.to_string());
    let mut fleet = Fleet::open(&run)?;
    let first = FIRST_PORT + u16::try_from(id % BLOCKS * PORTS_PER_BLOCK).context("blocks end below 32,768")?;
    let mut free = Ports::default();
    let mut ports = ServerPorts::anywhere(&mut free, first)?;
    ports.add_test_listener(&mut free, first)?;
    let mut servers = Servers::start_for_tests(&mut fleet, workspace, args.database, ports)?;
    if args.redis == RedisKind::Cluster {
        servers.add_cluster(&mut fleet, workspace, &mut free, first)?;
    }
    let outcome = run_tests(workspace, args, servers.test_environment(), counts);
    // A server that died explains the failures that followed.
    let unharmed = fleet.check();
    let interrupted = fleet.is_interrupted();
    fleet.end_at_once();
    if unharmed.is_err() && !interrupted {
        say(&format!("the logs of the servers are kept in {}", run.join("logs").display()));
        return unharmed;
    }
    remove_directory(&run)?;
    unharmed.and(outcome)
}

/// Runs the tests on the servers of a running `up`.
fn on_up(workspace: &Workspace, args: &TestArgs, counts: &mut Counts) -> anyhow::Result<()> {
    let environment = Servers::read_test_environment(&workspace.run("up"))
        .context("--up needs a running `cargo xtask up --servers-only`")?;
    run_tests(workspace, args, environment, counts)
}

fn run_tests(
    workspace: &Workspace,
    args: &TestArgs,
    environment: impl IntoIterator<Item = (String, String)>,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let mut cargo = cargo_test(workspace, args);
    cargo.arg("--no-fail-fast").args(&args.name).envs(environment).envs(drawn(args));
    cargo.env("STAMPEDE_TEST_BIN_DIR", workspace.binaries("debug"));
    if env::var_os(TEST_THREADS).is_none() {
        cargo.env(TEST_THREADS, test_threads().to_string());
    }
    pass_through(&mut cargo, counts)?;
    something_ran(args.name.as_deref(), counts)
}

/// The variables of `--fuzz-s` and `--seed`, as the tests read them.
fn drawn(args: &TestArgs) -> impl Iterator<Item = (&'static str, String)> {
    let given = [("STAMPEDE_TEST_FUZZ_S", args.fuzz_s), ("STAMPEDE_TEST_SEED", args.seed)];
    given.into_iter().filter_map(|(variable, number)| Some((variable, number?.to_string())))
}

/// More threads than cores: most tests wait for servers half of the time, and some for a permit.
fn test_threads() -> usize {
    3 * thread::available_parallelism().map_or(1, usize::from)
}

/// Fails if no test ran: a typing error in a name must not pass.
fn something_ran(name: Option<&str>, counts: &Counts) -> anyhow::Result<()> {
    match name {
        _ if !counts.is_empty() => Ok(()),
        Some(name) => bail!("no test ran: none has `{name}` in its name (cargo test -- --list shows them)"),
        None => bail!("no test ran"),
    }
}

/// Shows a command's output as it comes, and adds up the results in it.
fn pass_through(command: &mut Command, counts: &mut Counts) -> anyhow::Result<()> {
    let mut group = Group::start(command.stdout(Stdio::piped()))?;
    let output = group.output().expect("standard output is a pipe");
    let status = thread::scope(|scope| {
        let reader = scope.spawn(|| read_results(output, counts));
        let status = group.wait();
        let read = reader.join().expect("reading lines does not panic");
        status.and_then(|status| read.map(|()| status))
    })?;
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    Ok(())
}

fn read_results(output: impl Read, counts: &mut Counts) -> anyhow::Result<()> {
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test says")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.read(&line);
    }
    Ok(())
}

/// The result of each step.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, bool, Duration)>,
}

impl Report {
    /// Runs a step; whether it passed. Its error is shown where it happens.
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<()>) -> bool {
        say(&format!("\n=== {name}"));
        let started = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            say(&format!("{name}: {error:#}"));
        }
        self.steps.push((name, outcome.is_ok(), started.elapsed()));
        outcome.is_ok()
    }

    fn all_passed(&self) -> bool {
        self.steps.iter().all(|(_, passed, _)| *passed)
    }

    fn print(&self) {
        println!();
        for (name, passed, took) in &self.steps {
            let verdict = if *passed { "ok" } else { "FAILED" };
            println!("  {name:<14} {verdict:<8} {:>10}", seconds(*took));
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Cli};
    use clap::Parser;

    #[test]
    fn the_time_to_fuzz_and_the_seed_are_passed_on_if_they_are_given() {
        let passed_on = |flags: &[&str]| {
            let line = ["cargo xtask", "test", "-p", "gateway", "fuzz"].iter().chain(flags);
            let cli::Command::Test(args) = Cli::parse_from(line).command else { panic!("another command") };
            drawn(&args).collect::<Vec<_>>()
        };
        let numbers = ["600", "7"].map(str::to_owned);
        let expected: Vec<_> = ["STAMPEDE_TEST_FUZZ_S", "STAMPEDE_TEST_SEED"].into_iter().zip(numbers).collect();
        assert_eq!(passed_on(&["--fuzz-s", "600", "--seed", "7"]), expected);
        assert!(passed_on(&[]).is_empty());
    }

    #[test]
    fn what_passes_through_is_counted_and_a_failure_is_an_error() {
        let mut counts = Counts::default();
        let script = "echo 'test result: FAILED. 4 passed; 1 failed; 0 ignored'; exit 101";
        let outcome = pass_through(Command::new("sh").args(["-c", script]), &mut counts);
        assert!(outcome.is_err());
        assert_eq!(counts, Counts { passed: 4, failed: 1 });
    }

    #[test]
    fn a_name_that_no_test_has_is_an_error_that_says_so() {
        let one = Counts { passed: 1, failed: 0 };
        assert!(something_ran(Some("sold_out"), &one).is_ok() && something_ran(None, &one).is_ok());
        let error = something_ran(Some("sodl_out"), &Counts::default()).expect_err("nothing ran").to_string();
        assert!(error.contains("sodl_out"), "{error}");
        assert!(something_ran(None, &Counts::default()).is_err());
    }

    #[test]
    fn a_failed_step_does_not_stop_the_next_and_fails_the_whole() {
        let mut report = Report::default();
        assert!(!report.step("one", || bail!("broken")));
        assert!(report.step("two", || Ok(())));
        assert!(!report.all_passed());
    }

    #[test]
    fn every_block_of_ports_lies_below_those_of_clients() {
        assert!(u32::from(FIRST_PORT) + BLOCKS * PORTS_PER_BLOCK < 32_768);
    }
}
