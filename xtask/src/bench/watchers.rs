//! `cargo xtask bench watchers`: how soon a crowd is notified that the event it watches has changed, through one
//! gateway and one replica of the event service, and the cost of a watcher in the two. Processor time is the kernel's.

use crate::{
    bench::{
        costs::Spent,
        stage::{self, Stage},
    },
    cli::{Profile, WatchersArgs},
    fleet::Fleet,
    setup, shell,
    ui::Step,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stampede_vocab::Service;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// Time within which 99 of 100 watchers are to be notified.
const MOST_P99_MS: f64 = 500.0;
/// The process beside the event service that watchers cost something.
const GATEWAY: &str = "gateway";

/// Delays from the request of a change to its notifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Delays {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Time until every watcher had received the first state of the event.
#[derive(Debug, Deserialize)]
struct Opened {
    opened_ms: f64,
}

/// The cost of one watcher in one process.
#[derive(Debug, PartialEq, Serialize)]
struct Cost {
    memory_bytes: f64,
    /// Processor time to open its stream, in microseconds.
    opening_us: f64,
    /// The same for a second in which nothing changes.
    idle_us_per_s: f64,
    /// The same to notify it of one change.
    change_us: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    watchers: u32,
    changes: u32,
    opened_ms: f64,
    /// Of the slowest change, each figure by itself.
    #[serde(rename = "told")]
    delays: Delays,
    /// By process; empty for a mesh that is not ours.
    costs: BTreeMap<String, Cost>,
}

/// The resources that the processes have used so far.
struct Reading {
    spent: Spent,
    memory: BTreeMap<String, u64>,
}

/// Measures. Returns whether every watcher was notified of every change.
pub fn run(workspace: &Workspace, args: &WatchersArgs) -> anyhow::Result<bool> {
    stage::check(workspace, &args.load)?;
    setup::compiler()?;
    let program = build(workspace, args.load.profile.or(Profile::Release))?;
    stage::with(workspace, &args.load, |stage, fleet| {
        let figures = measure(&program, stage, fleet, args)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&figures)?);
        } else {
            print(&figures);
        }
        Ok(true)
    })
}

/// Builds the crowd. Cargo shows its own progress.
fn build(workspace: &Workspace, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut cargo = shell::cargo(workspace.root());
    cargo.args(["build", "--package", "stampede-gateway", "--example", "watchers"]);
    shell::shown(cargo.args(["--profile", profile.cargo_name()]))?;
    Ok(workspace.binaries(profile.directory()).join("examples/watchers"))
}

fn measure(program: &Path, stage: &Stage, fleet: &mut Fleet, args: &WatchersArgs) -> anyhow::Result<Figures> {
    let token = shell::quiet(stage.operator().args(["token", "--role", "operator"]))?;
    let before = Reading::now(fleet);
    let step = Step::begin("watchers", "opening streams");
    let mut crowd = Crowd::start(program, stage.gateway(), token.trim(), args)?;
    let Opened { opened_ms } = crowd.report(fleet)?;
    step.done(&format!("{} streams are open", args.watchers));
    let opened = Reading::now(fleet);
    let step = Step::begin("silence", "measuring");
    fleet.stay(Duration::from_secs(args.load.seconds.into()))?;
    let idle = Reading::now(fleet);
    step.done("nothing has changed");
    let step = Step::begin("changes", "measuring");
    let mut delays = Delays::default();
    for _ in 0..args.changes {
        crowd.go_on()?;
        delays = delays.or_slower(crowd.report(fleet)?);
    }
    step.done(&format!("p50 {:.0} ms, p99 {:.0} ms", delays.p50_ms, delays.p99_ms));
    let changed = Reading::now(fleet);
    crowd.end()?;
    let costs = [GATEWAY, Service::Event.name()].into_iter().filter_map(|name| {
        let memory = opened.memory.get(name)?.saturating_sub(*before.memory.get(name)?);
        let opening = opened.of(name, &before)?;
        let idle_time = idle.of(name, &opened)?;
        let changes = changed.of(name, &idle)?;
        Some((name.to_owned(), Cost::of(args, memory, [opening, idle_time, changes])))
    });
    let costs = costs.collect();
    Ok(Figures { watchers: args.watchers, changes: args.changes, opened_ms, delays, costs })
}

impl Reading {
    fn now(fleet: &Fleet) -> Self {
        Self { spent: stage::spent(fleet), memory: stage::memory(fleet).into_iter().collect() }
    }

    /// Returns the processor time of a process since an earlier reading.
    fn of(&self, name: &str, before: &Self) -> Option<Duration> {
        self.spent.since(&before.spent).get(name).copied()
    }
}

impl Cost {
    /// Computes it from the memory of all watchers, and from the time to open them, of the silence, and of the changes.
    fn of(args: &WatchersArgs, memory: u64, [opening, idle, changes]: [Duration; 3]) -> Self {
        let watchers = f64::from(args.watchers);
        let us = |time: Duration| time.as_secs_f64() * 1e6 / watchers;
        #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
        let memory = memory as f64;
        Self {
            memory_bytes: memory / watchers,
            opening_us: us(opening),
            idle_us_per_s: us(idle) / f64::from(args.load.seconds),
            change_us: us(changes) / f64::from(args.changes),
        }
    }
}

impl Delays {
    fn or_slower(self, other: Self) -> Self {
        Self {
            p50_ms: self.p50_ms.max(other.p50_ms),
            p99_ms: self.p99_ms.max(other.p99_ms),
            max_ms: self.max_ms.max(other.max_ms),
        }
    }
}

/// The crowd, which does one step for each order that it reads. It ends when this is dropped.
struct Crowd {
    child: Child,
    orders: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(program: &Path, gateway: &str, token: &str, args: &WatchersArgs) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).arg(gateway);
        command.args(["--watchers", &args.watchers.to_string(), "--changes", &args.changes.to_string()]);
        command.args(args.http1.then_some("--http1")).env("STAMPEDE_OPERATOR_TOKEN", token);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the crowd")?;
        let orders = child.stdin.take();
        let said = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { child, orders, said })
    }

    /// Reads its report of the step just done. It limits each step to a minute.
    fn report<T: DeserializeOwned>(&mut self, fleet: &mut Fleet) -> anyhow::Result<T> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        fleet.check()?;
        ensure!(!line.is_empty(), "the crowd has ended, for the reason that it gives above");
        serde_json::from_str(&line).with_context(|| format!("the crowd printed {line}"))
    }

    /// Lets it do the next step.
    fn go_on(&mut self) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("it has ended")?;
        orders.write_all(b"\n").context("the crowd does not listen")
    }

    /// Waits for it to end. Fails if it ends with an error.
    fn end(mut self) -> anyhow::Result<()> {
        drop(self.orders.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the crowd has ended with {status}");
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // A process that has ended is only reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn print(figures: &Figures) {
    let Figures { watchers, changes, opened_ms, delays, costs } = figures;
    println!(
        "\n  {watchers} watchers of one event, notified of {changes} changes; their streams opened in {opened_ms:.0} ms"
    );
    println!(
        "  notified after   p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms",
        delays.p50_ms, delays.p99_ms, delays.max_ms
    );
    if !costs.is_empty() {
        println!(
            "\n  {:<10} {:>14} {:>14} {:>16} {:>14}",
            "a watcher", "memory bytes", "to open us", "idle us/s", "a change us"
        );
    }
    for (name, cost) in costs {
        println!(
            "  {name:<10} {:>14.0} {:>14.1} {:>16.2} {:>14.1}",
            cost.memory_bytes, cost.opening_us, cost.idle_us_per_s, cost.change_us
        );
    }
    let met = if delays.p99_ms <= MOST_P99_MS { "met" } else { "not met" };
    println!("\n  99 of 100 are notified within {MOST_P99_MS:.0} ms: {met}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Typed, Generator};
    use clap::Parser;

    fn args(typed: &[&str]) -> WatchersArgs {
        let all = [&["cargo xtask", "bench", "watchers"], typed].concat();
        let Typed::Bench(bench) = Cli::try_parse_from(all).expect("well formed").command else { panic!("no bench") };
        let Generator::Watchers(args) = bench.generator else { panic!("no watchers") };
        args
    }

    #[test]
    fn a_cost_is_that_of_one_watcher() {
        let args = args(&["--watchers", "1000", "--changes", "4", "--seconds", "5"]);
        let [opening, idle, changes] = [1, 2, 4].map(Duration::from_secs);
        let cost = Cost::of(&args, 8_000_000, [opening, idle, changes]);
        let expected = Cost { memory_bytes: 8_000.0, opening_us: 1_000.0, idle_us_per_s: 400.0, change_us: 1_000.0 };
        assert_eq!(cost, expected);
    }

    #[test]
    fn the_slowest_change_counts() {
        let [first, second] = [
            Delays { p50_ms: 90.0, p99_ms: 200.0, max_ms: 300.0 },
            Delays { p50_ms: 80.0, p99_ms: 250.0, max_ms: 260.0 },
        ];
        assert_eq!(first.or_slower(second), Delays { p50_ms: 90.0, p99_ms: 250.0, max_ms: 300.0 });
    }
}
