//! `cargo xtask bench ghz`: plays the plans of `ghz-bench/` one after another.

use crate::{
    bench::{
        metrics::{self, Outcomes},
        page,
        plan::{self, Load, Plan},
        seed::{self, Seed},
        share,
        stage::{self, Stage},
    },
    cli::GhzArgs,
    fleet::Fleet,
    setup,
    shell::{self, Group},
    ui::{Step, say},
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Calls that ghz counts as failed and no service has seen.
const LOST: &str = "LOST_ON_THE_WAY";

/// The result of one plan.
#[derive(Debug, Serialize)]
pub struct Played {
    /// Its name.
    pub plan: String,
    /// Calls that were answered, or failed.
    pub calls: u64,
    /// Calls a second.
    pub per_s: f64,
    pub p50_ms: f64,
    /// Latency that one call in a hundred exceeds.
    pub p99_ms: f64,
    /// Answers by reason, OK among them.
    pub outcomes: Outcomes,
    /// Outcomes that the plan does not allow.
    pub unexpected: Vec<String>,
    /// Microseconds of processor that each process and server spent on a call; empty for a mesh that is not ours.
    pub cpu_us_per_call: BTreeMap<String, f64>,
    /// Bytes of memory that each process and server has after it; empty for a mesh that is not ours.
    pub memory_bytes: BTreeMap<String, u64>,
    /// Bars of latency: milliseconds up to which, and how many calls.
    pub histogram: Vec<(f64, u64)>,
}

/// Plays the plans. Returns whether all outcomes were as expected.
pub fn run(workspace: &Workspace, args: &GhzArgs) -> anyhow::Result<bool> {
    let course = Course::of(workspace, args)?;
    stage::check(workspace, &args.load)?;
    let ghz = setup::ghz(workspace)?;
    let results = workspace.run("bench/ghz");
    stage::with(workspace, &args.load, |stage, fleet| {
        remove_directory(&results)?;
        make_directory(&results)?;
        let mut runner = Runner { workspace, ghz: &ghz, results: &results, args, stage, fleet };
        let played = course.play(&mut runner)?;
        print(&played);
        fs::write(results.join("summary.json"), serde_json::to_string_pretty(&played)?)?;
        fs::write(results.join("index.html"), page::html(&played))?;
        say(&format!("\n  kept         {}", results.join("index.html").display()));
        Ok(played.iter().all(|one| one.unexpected.is_empty()))
    })
}

/// Which plans are played, and with what load.
enum Course {
    /// Each by itself.
    Plans(Vec<Plan>),
    /// The closed form of each call for its maximum, and then the open one at this percentage of it.
    Share { pairs: Vec<(Plan, Plan)>, percent: u32 },
}

impl Course {
    fn of(workspace: &Workspace, args: &GhzArgs) -> anyhow::Result<Self> {
        let folder = plan::folder(workspace);
        Ok(match args.share {
            Some(percent) => Self::Share { pairs: plan::pairs(&folder, &args.plans)?, percent },
            None => Self::Plans(plan::chosen(&folder, &args.plans, args.rate)?),
        })
    }

    fn play(&self, runner: &mut Runner<'_>) -> anyhow::Result<Vec<Played>> {
        let mut played = Vec::new();
        match self {
            Self::Plans(plans) => {
                let load = runner.args.rate.map_or(Load::AsPlanned, Load::Rate);
                for plan in plans {
                    played.push(runner.play(plan, load)?);
                }
            }
            Self::Share { pairs, percent } => {
                for (closed, open) in pairs {
                    played.extend(share::play(runner, closed, open, *percent)?);
                }
            }
        }
        Ok(played)
    }
}

/// Plays plans on the mesh.
pub struct Runner<'a> {
    workspace: &'a Workspace,
    ghz: &'a Path,
    results: &'a Path,
    args: &'a GhzArgs,
    stage: &'a Stage,
    fleet: &'a mut Fleet,
}

impl Runner<'_> {
    /// Waits until the orders of the last plan have ended.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.stage.until_orders_have_ended(self.args.load.seconds)
    }

    pub fn play(&mut self, plan: &Plan, load: Load) -> anyhow::Result<Played> {
        let name = load.name(plan);
        let step = Step::begin(&name, "making an event");
        let stage = self.stage;
        let seed = Seed::open(stage, &self.workspace.root().join("ghz-bench/sale.toml"))?;
        let seconds = self.args.load.seconds;
        let (config, output) = (self.file(&name, "plan.json"), self.file(&name, "ghz.json"));
        let service = plan.service()?;
        let mut content = plan.played(&stage.service(service), seconds, load);
        content["format"] = "json".into();
        content["output"] = output.display().to_string().into();
        fs::write(&config, serde_json::to_string_pretty(&content)?).context("the plan cannot be written")?;

        let mut command = Command::new(self.ghz);
        command.arg("--config").arg(&config).current_dir(self.workspace.root());
        command.env("STAMPEDE_RUN", seed::run_id()?).stdout(Stdio::null());
        command.envs(seed.ids().into_iter().map(|(name, id)| (format!("STAMPEDE_{name}"), id)));
        command.envs(seed::identities(stage)?);
        let before = (stage::spent(self.fleet), stage.outcomes(service, plan.method())?);
        let status = Group::start(&mut command)?.wait()?;
        anyhow::ensure!(status.success(), "{} failed ({status})", shell::describe(&command));
        self.fleet.check()?;
        let after = (stage::spent(self.fleet), stage.outcomes(service, plan.method())?);

        let report = fs::read_to_string(&output).with_context(|| format!("ghz wrote no {}", output.display()))?;
        let report: Value = serde_json::from_str(&report).context("ghz wrote no JSON")?;
        let counted = before.1.zip(after.1).map(|(before, after)| metrics::since(&before, &after));
        let memory_bytes = stage::memory(self.fleet).into_iter().collect();
        let of_plan = Played::of(plan, &report, counted, &after.0.since(&before.0));
        let mut played = Played { plan: name, memory_bytes, ..of_plan };
        if let Some(most_ms) = self.args.p99_ms.filter(|_| plan.is_open()) {
            played.hold_to(most_ms);
        }
        step.done(&format!("{:.0}/s, p50 {:.1} ms, p99 {:.1} ms", played.per_s, played.p50_ms, played.p99_ms));
        Ok(played)
    }

    fn file(&self, name: &str, ending: &str) -> std::path::PathBuf {
        self.results.join(format!("{name}.{ending}"))
    }
}

impl Played {
    fn of(plan: &Plan, report: &Value, counted: Option<Outcomes>, spent: &BTreeMap<String, Duration>) -> Self {
        let calls = report["count"].as_u64().unwrap_or(0);
        let outcomes = outcomes(report, counted);
        let allowed = plan.allowed();
        let is_allowed = |name: &&String| allowed.contains(&name.trim_start_matches(metrics::RESERVATION));
        let mut unexpected: Vec<String> = outcomes.keys().filter(|name| !is_allowed(name)).cloned().collect();
        // A plan without an answer has failed.
        if calls == 0 || !outcomes.keys().any(|name| !name.starts_with(metrics::RESERVATION)) {
            unexpected.push("no call was counted".to_owned());
        }
        let per_call = |(name, time): (&String, &Duration)| (name.clone(), per_call_us(*time, calls));
        Self {
            plan: plan.name.clone(),
            calls,
            per_s: report["rps"].as_f64().unwrap_or(0.0),
            p50_ms: percentile_ms(report, 50),
            p99_ms: percentile_ms(report, 99),
            outcomes,
            unexpected,
            cpu_us_per_call: spent.iter().map(per_call).collect(),
            memory_bytes: BTreeMap::new(),
            histogram: histogram(report),
        }
    }

    /// Notes it if one call in a hundred took longer.
    fn hold_to(&mut self, most_ms: u32) {
        if self.p99_ms.is_nan() || self.p99_ms > f64::from(most_ms) {
            self.unexpected.push(format!("p99 {:.1} ms, of {most_ms} ms at most", self.p99_ms));
        }
    }
}

fn per_call_us(time: Duration, calls: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of calls is far below 2^52")]
    let calls = calls.max(1) as f64;
    time.as_secs_f64() * 1e6 / calls
}

/// Counts the answers by the service's metrics, and the calls that never reached it. Without these metrics, counts the
/// codes that ghz saw.
fn outcomes(report: &Value, counted: Option<Outcomes>) -> Outcomes {
    let codes = report["statusCodeDistribution"].as_object().cloned().unwrap_or_default();
    let seen: Outcomes = codes.iter().map(|(code, count)| (code.clone(), count.as_u64().unwrap_or(0))).collect();
    let is_failure = |name: &str| name != "OK" && !name.starts_with(metrics::RESERVATION);
    let failed = |outcomes: &Outcomes| outcomes.iter().filter(|(name, _)| is_failure(name)).map(|(_, n)| n).sum();
    let Some(mut counted) = counted else { return seen };
    let (by_ghz, by_service): (u64, u64) = (failed(&seen), failed(&counted));
    if by_ghz > by_service {
        counted.insert(LOST.to_owned(), by_ghz - by_service);
    }
    counted
}

fn percentile_ms(report: &Value, percentage: u64) -> f64 {
    let all = report["latencyDistribution"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = all.iter().find(|one| one["percentage"].as_u64() == Some(percentage));
    found.and_then(|one| one["latency"].as_f64()).unwrap_or(f64::NAN) / 1e6
}

fn histogram(report: &Value) -> Vec<(f64, u64)> {
    let bars = report["histogram"].as_array().map(Vec::as_slice).unwrap_or_default();
    bars.iter().filter_map(|bar| Some((bar["mark"].as_f64()? * 1e3, bar["count"].as_u64()?))).collect()
}

fn print(played: &[Played]) {
    println!("\n  {:<24} {:>9} {:>9} {:>9} {:>9}   outcomes", "plan", "calls", "per s", "p50 ms", "p99 ms");
    for one in played {
        let outcomes =
            one.outcomes.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
        println!(
            "  {:<24} {:>9} {:>9.0} {:>9.1} {:>9.1}   {outcomes}",
            one.plan, one.calls, one.per_s, one.p50_ms, one.p99_ms
        );
    }
    for one in played.iter().filter(|one| !one.unexpected.is_empty()) {
        println!("\n  {}: not reckoned with: {}", one.plan, one.unexpected.join(", "));
    }
    print_by_process("microseconds of processor a call, by process", played, |one| one.cpu_us_per_call.clone());
    print_by_process("megabytes of memory after the plan, by process", played, |one| {
        one.memory_bytes.iter().map(|(name, bytes)| (name.clone(), *bytes as f64 / 1e6)).collect()
    });
}

/// The share of a call's cost below which a process counts as idle.
const LEAST: f64 = 0.5;

/// A table of figures by process, of those that have one of some size.
fn print_by_process(title: &str, played: &[Played], figures: impl Fn(&Played) -> BTreeMap<String, f64>) {
    let rows: Vec<(&str, BTreeMap<String, f64>)> = played.iter().map(|one| (one.plan.as_str(), figures(one))).collect();
    let has_some = |name: &String| rows.iter().any(|(_, figures)| figures.get(name).is_some_and(|n| *n >= LEAST));
    let Some((_, first)) = rows.first() else { return };
    let names: Vec<&String> = first.keys().filter(|name| has_some(name)).collect();
    if names.is_empty() {
        return;
    }
    println!("\n  {title}");
    print!("  {:<24}", "plan");
    names.iter().for_each(|name| print!(" {name:>9}"));
    println!(" {:>9}", "all");
    for (plan, figures) in &rows {
        print!("  {plan:<24}");
        names.iter().for_each(|name| print!(" {:>9.0}", figures.get(*name).copied().unwrap_or(0.0)));
        println!(" {:>9.0}", figures.values().sum::<f64>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "count": 12, "rps": 3.5,
            "statusCodeDistribution": {"OK": 9, "Unavailable": 3},
            "latencyDistribution": [{"percentage": 50, "latency": 2_000_000}, {"percentage": 99, "latency": 9_000_000}],
            "histogram": [{"mark": 0.002, "count": 7, "frequency": 0.5}],
        })
    }

    #[test]
    fn calls_that_never_reached_the_service_are_an_outcome_too() {
        let counted = [("OK", 9), ("NOT_READY", 1), ("reservation SOLD_OUT", 9)];
        let counted = counted.map(|(name, count)| (name.to_owned(), count)).into();
        let outcomes = outcomes(&report(), Some(counted));
        assert_eq!((outcomes["NOT_READY"], outcomes[LOST]), (1, 2));
    }

    #[test]
    fn without_the_services_count_the_codes_are_the_outcomes() {
        assert_eq!(outcomes(&report(), None)["Unavailable"], 3);
    }

    #[test]
    fn a_p99_above_its_bound_fails_the_run() {
        let plan = plan::chosen(&plan::folder(&Workspace::locate()), &["place-order.open".to_owned()], None);
        let plan = plan.expect("it is there").remove(0);
        let unexpected = |most_ms| {
            let counted = Outcomes::from([("OK".to_owned(), 12)]);
            let mut played = Played::of(&plan, &report(), Some(counted), &BTreeMap::new());
            played.unexpected.clear();
            played.hold_to(most_ms);
            played.unexpected
        };
        assert!(unexpected(9).is_empty());
        assert_eq!(unexpected(8), ["p99 9.0 ms, of 8 ms at most"]);
    }

    #[test]
    fn figures_are_read_in_their_units() {
        let report = report();
        assert_eq!((percentile_ms(&report, 50), percentile_ms(&report, 99)), (2.0, 9.0));
        assert_eq!(histogram(&report), [(2.0, 7)]);
        assert_eq!(per_call_us(Duration::from_millis(12), 12), 1_000.0);
    }
}
