//! `cargo xtask bench jmeter`: plays the plans of `jmeter-bench/` one after another, with JMeter's dashboard.

use crate::{
    bench::{
        samples::{self, Summary},
        seed::{self, Seed},
        stage::{self, Stage},
    },
    cli::JmeterArgs,
    fleet::Fleet,
    setup,
    shell::{self, Group},
    ui::{Step, say},
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The plan whose readers arrive before the opening, so its event must not be open yet.
const BEFORE_THE_OPENING: &str = "browse-and-wait";
/// Seconds from the start of JMeter to its first reader, and the longest start-up of its JVM.
const FIRST_READER_S: u32 = 5;
const JVM_S: u32 = 6;
/// Seconds over which users come.
const RAMP_S: u32 = 2;
/// Seconds that a purchase of `order-flow` is expected to take. Each is made under a token of its own.
const SECONDS_PER_PURCHASE: u32 = 1;
/// Most tokens that `stampede token` makes.
const MAX_TOKENS: u64 = 1_000_000;

/// Plays the plans. Returns whether every answer was an expected one.
pub fn run(workspace: &Workspace, args: &JmeterArgs) -> anyhow::Result<bool> {
    let plans = chosen(&workspace.root().join("jmeter-bench"), &args.plans)?;
    ensure!(
        tokens(args) <= MAX_TOKENS,
        "--users {} for --seconds {} need {} tokens, and {MAX_TOKENS} can be made: lower one of the two",
        args.users,
        args.load.seconds,
        tokens(args)
    );
    stage::check(workspace, &args.load)?;
    let home = setup::jmeter(workspace)?;
    let results = workspace.run("bench/jmeter");
    stage::with(workspace, &args.load, |stage, fleet| {
        remove_directory(&results)?;
        make_directory(&results)?;
        let mut good = true;
        for plan in &plans {
            let runner = Runner { workspace, home: &home, results: &results, args };
            good &= runner.play(plan, stage, fleet)?;
        }
        Ok(good)
    })
}

/// A token for each purchase that there is time for, and one more for the last that begins.
const fn tokens(args: &JmeterArgs) -> u64 {
    args.users as u64 * (args.load.seconds / SECONDS_PER_PURCHASE + 1) as u64
}

/// The plans that were named; all, if none was.
fn chosen(folder: &Path, named: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut plans: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    plans.retain(|path| path.extension().is_some_and(|end| end == "jmx"));
    plans.sort();
    let known: Vec<String> = plans.iter().map(|plan| name_of(plan)).collect();
    if let Some(stranger) = named.iter().find(|name| !known.contains(name)) {
        bail!("{stranger}: there is no such plan; the plans are {}", known.join(", "));
    }
    plans.retain(|plan| named.is_empty() || named.contains(&name_of(plan)));
    Ok(plans)
}

fn name_of(plan: &Path) -> String {
    plan.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

struct Runner<'a> {
    workspace: &'a Workspace,
    home: &'a Path,
    results: &'a Path,
    args: &'a JmeterArgs,
}

impl Runner<'_> {
    fn play(&self, plan: &Path, stage: &Stage, fleet: &mut Fleet) -> anyhow::Result<bool> {
        let name = name_of(plan);
        let step = Step::begin(&name, "making an event and tokens");
        let folder = self.results.join(&name);
        make_directory(&folder)?;
        let (count, tokens) = (tokens(self.args), folder.join("tokens.csv"));
        seed::write_tokens(stage, count, &tokens)?;
        let sale = self.workspace.root().join("ghz-bench/sale.toml");
        let seed = match name.as_str() {
            // In the middle of the readers.
            BEFORE_THE_OPENING => {
                Seed::opening_in(stage, &sale, JVM_S + FIRST_READER_S + RAMP_S + self.args.load.seconds / 2)?
            }
            _ => Seed::open(stage, &sale)?,
        };
        let mut java = self.command(plan, &folder, stage, &seed, &tokens)?;
        let status = Group::start(&mut java)?.wait()?;
        if !status.success() {
            let log = fs::read_to_string(folder.join("jmeter.out")).unwrap_or_default();
            bail!("{} failed ({status})\n{}", shell::describe(&java), shell::tail(&log, 20));
        }
        fleet.check()?;
        let summary = samples::summarise(&folder.join("samples.csv"))?;
        step.done(&summary.headline());
        summary.print();
        say(&format!("  {:<12} {}", "dashboard", folder.join("dashboard/index.html").display()));
        Ok(summary.is_as_expected())
    }

    /// Tokens that a run may need. A plan that uses them up begins again with the first, whose coupon is claimed.
    fn command(
        &self,
        plan: &Path,
        folder: &Path,
        stage: &Stage,
        seed: &Seed,
        tokens: &Path,
    ) -> anyhow::Result<Command> {
        let (host, port) = stage.gateway().rsplit_once(':').context("the gateway has a port")?;
        let mut properties = vec![
            ("host".to_owned(), host.to_owned()),
            ("port".to_owned(), port.to_owned()),
            ("users".to_owned(), self.args.users.to_string()),
            ("duration".to_owned(), self.args.load.seconds.to_string()),
            ("tokens".to_owned(), tokens.display().to_string()),
            ("ramp".to_owned(), RAMP_S.to_string()),
            ("run".to_owned(), seed::run_id()?),
            // An open model keeps its process for a minute after all is over.
            ("jmeterengine.force.system.exit".to_owned(), "true".to_owned()),
        ];
        let short = |name: &str| name.trim_end_matches("_ID").to_lowercase();
        properties.extend(seed.ids().into_iter().map(|(name, id)| (short(name), id)));
        let output = fs::File::create(folder.join("jmeter.out")).context("JMeter's output cannot be kept")?;
        let mut java = Command::new(shell::find_program("java").context("java is gone")?);
        java.arg("-Xmx512m").arg("-jar").arg(self.home.join("bin/ApacheJMeter.jar"));
        java.args(["-n", "-e", "-t"]).arg(plan);
        java.arg("-l").arg(folder.join("samples.csv")).arg("-o").arg(folder.join("dashboard"));
        java.arg("-j").arg(folder.join("jmeter.log"));
        java.args(properties.into_iter().map(|(name, value)| format!("-J{name}={value}")));
        java.stderr(output.try_clone().context("JMeter's output cannot be kept")?).stdout(output).stdin(Stdio::null());
        Ok(java)
    }
}

impl Summary {
    fn print(&self) {
        println!("\n  {:<28} {:>9} {:>9} {:>9} {:>9}", "sample", "count", "p50 ms", "p99 ms", "failed");
        for line in &self.lines {
            println!("  {:<28} {:>9} {:>9} {:>9} {:>9}", line.label, line.count, line.p50_ms, line.p99_ms, line.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_found_by_name_and_mistakes_are_reported() {
        let folder = Workspace::locate().root().join("jmeter-bench");
        assert_eq!(chosen(&folder, &[]).expect("they are there").len(), 3);
        assert_eq!(chosen(&folder, &["order-flow".to_owned()]).expect("it is there").len(), 1);
        let error = chosen(&folder, &["order-flwo".to_owned()]).expect_err("a slip").to_string();
        assert!(error.contains("order-flwo") && error.contains("coupon-issue"), "{error}");
    }
}
