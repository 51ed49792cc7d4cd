//! One round: a crowd buys, a fault is injected and removed, the simulation ends, and the audit checks the promises.

use crate::{
    chaos::{
        acknowledged::Acknowledged,
        outcome::{Outcome, whole_ms},
        plan::Round,
        sql::Session,
        strike::{Stage, Strike},
    },
    fleet::{Beside, Fleet, TICK},
    mesh::SCHEMA_PREFIX,
    workspace::make_directory,
};
use anyhow::Context;
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Longest time from the crowd's start to the orders after which a fault strikes.
const PLACED_WITHIN: Duration = Duration::from_secs(30);
/// Poll interval of the orders.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time until the last order of a sale has ended, and the simulation has read its final state.
const SALE_WITHIN_S: u64 = 60;
const HOME_WITHIN: Duration = Duration::from_secs(SALE_WITHIN_S + 60);
/// Longest time until nothing is moving: longer than units and coupons wait for an order that was never written.
const QUIET_WITHIN_S: u64 = 60;
/// Largest lateness of an opening or closing. An event cannot turn while its service or one of its servers is away:
/// longer than a fault lasts and a server takes to be back. It must never turn early or twice.
const TURNS_WITHIN_MS: u64 = 30_000;

/// The files of a run's rounds.
pub struct Files {
    folder: PathBuf,
    /// The sale that is played.
    pub sale: PathBuf,
}

impl Files {
    /// Makes the folder, and writes the sale.
    pub fn make(run: &Path, sale: &str) -> anyhow::Result<Self> {
        let folder = run.join("rounds");
        make_directory(&folder)?;
        let file = folder.join("sale.toml");
        fs::write(&file, sale).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { folder, sale: file })
    }

    fn of(&self, number: usize, name: &str) -> PathBuf {
        self.folder.join(format!("{number}-{name}"))
    }

    fn all_acknowledged(&self) -> PathBuf {
        self.folder.join("acknowledged.json")
    }
}

/// State that all rounds of a run share.
pub struct Rounds<'a> {
    pub stage: Stage<'a>,
    pub files: Files,
    /// The number of buyers of a sale, if not that of its file.
    pub buyers: Option<u32>,
    /// Everything acknowledged to the crowds so far.
    pub acknowledged: Acknowledged,
}

impl Rounds<'_> {
    /// Plays one round. Fails where it could not be played to its end.
    pub fn play(&mut self, fleet: &mut Fleet, number: usize, round: &Round) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut outcome = Outcome::of(number, round);
        let mut orders = Orders::now(&self.stage)?;
        let mut crowd = Beside::start(self.crowd(number)?)?;
        if orders.wait_for(fleet, &mut crowd, round.after_orders)? {
            fleet.stay(round.delay)?;
            let strike = Strike::begin(&self.stage, fleet, round.fault)?;
            fleet.stay(round.lasts)?;
            outcome.met = strike.end(fleet)?;
        } else {
            outcome.fail(format!("it did not strike: there were not {} orders in time", round.after_orders));
        }
        self.see_home(fleet, crowd, number, &mut outcome)?;
        self.stage.wait_ready(fleet)?;
        self.audit(fleet, number, &mut outcome)?;
        outcome.took_ms = whole_ms(started.elapsed());
        Ok(outcome)
    }

    fn crowd(&self, number: usize) -> anyhow::Result<Command> {
        let mut crowd = self.stage.mesh.simulate_through(&self.stage.links.gateway_url(), &self.files.sale);
        crowd.args(["--seed", &number.to_string(), "--deadline-s", &SALE_WITHIN_S.to_string()]);
        crowd.arg("--acknowledged").arg(self.files.of(number, "acknowledged.json"));
        crowd.arg("--json").arg(self.files.of(number, "sale.json"));
        if let Some(buyers) = self.buyers {
            crowd.args(["--buyers", &buyers.to_string()]);
        }
        self.logged(crowd, number, "sale.log")
    }

    /// Waits until the simulation has ended, and reads its report. Unexpected answers are only counted.
    fn see_home(
        &mut self,
        fleet: &mut Fleet,
        mut crowd: Beside,
        number: usize,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + HOME_WITHIN;
        let status = loop {
            match crowd.ended()? {
                None if Instant::now() < until => fleet.stay(TICK)?,
                ended => break ended,
            }
        };
        if !matches!(status.and_then(|status| status.code()), Some(0 | 1)) {
            let log = self.files.of(number, "sale.log");
            outcome.fail(format!("the sale could not be played to its end: {}", log.display()));
            return Ok(());
        }
        outcome.read_sale(&json_of(&self.files.of(number, "sale.json"))?);
        self.acknowledged.add(Acknowledged::read(&self.files.of(number, "acknowledged.json"))?);
        Ok(())
    }

    /// Audits every promise against all sales and acknowledgements of the run so far.
    fn audit(&self, fleet: &mut Fleet, number: usize, outcome: &mut Outcome) -> anyhow::Result<()> {
        let (acknowledged, result) = (self.files.all_acknowledged(), self.files.of(number, "audit.json"));
        self.acknowledged.write(&acknowledged)?;
        let mut audit = self.stage.mesh.audit(Some(&acknowledged));
        audit.args(["--quiet-deadline-s", &QUIET_WITHIN_S.to_string()]);
        audit.args(["--open-within-ms", &TURNS_WITHIN_MS.to_string()]);
        audit.arg("--json").arg(&result);
        let status = fleet.run_command(self.logged(audit, number, "audit.log")?)?;
        match status.code() {
            Some(0 | 1) => outcome.read_audit(&json_of(&result)?),
            _ => {
                let log = self.files.of(number, "audit.log");
                outcome.fail(format!("the audit could not be made: {}", log.display()));
            }
        }
        Ok(())
    }

    /// Returns the command with its output in a file.
    fn logged(&self, mut command: Command, number: usize, name: &str) -> anyhow::Result<Command> {
        let path = self.files.of(number, name);
        let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        command.stderr(log.try_clone().context("cannot share the log file")?).stdout(log);
        Ok(command)
    }
}

/// The orders of one round, to be counted.
struct Orders {
    session: Session,
    before: u64,
}

impl Orders {
    fn now(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let mut orders = Self { session: stage.session()?, before: 0 };
        orders.before = orders.count()?;
        Ok(orders)
    }

    fn count(&mut self) -> anyhow::Result<u64> {
        self.session.number(&format!("SELECT COUNT(*) FROM `{SCHEMA_PREFIX}order`.orders"))
    }

    /// Waits until so many are placed. Returns false if the simulation ends before, or it takes too long.
    fn wait_for(&mut self, fleet: &mut Fleet, crowd: &mut Beside, count: u64) -> anyhow::Result<bool> {
        let until = Instant::now() + PLACED_WITHIN;
        while self.count()? < self.before + count {
            if crowd.ended()?.is_some() || Instant::now() > until {
                return Ok(false);
            }
            fleet.check()?;
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(true)
    }
}

fn json_of(file: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))
}
