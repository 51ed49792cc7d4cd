//! The outcome of each round: read from the reports of simulation and audit, and printed as a table or as JSON.

use crate::{chaos::plan::Round, ui::seconds};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// One round that was played.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// From 1.
    pub round: usize,
    pub fault: String,
    /// After so many orders of the sale,
    pub after_orders: u64,
    /// and so long after that,
    pub delay_ms: u64,
    /// for so long.
    pub lasts_ms: u64,
    /// Whether a statement of the sale has met the fault, or bytes have, on a link. None if that cannot be told.
    pub met: Option<bool>,
    /// Whether every promise held, and the round went as planned.
    pub held: bool,
    /// The problems; empty if it held.
    pub problems: Vec<String>,
    /// Orders that the crowd placed.
    pub orders: u64,
    /// Answers that the crowd did not expect, by reason: a buyer sees them during a fault.
    pub unexpected: BTreeMap<String, u64>,
    pub took_ms: u64,
}

/// All rounds of a run.
#[derive(Debug, Serialize)]
pub struct Report<'r> {
    pub seed: u64,
    pub database: &'static str,
    /// Whether all rounds held, and there was one.
    pub held: bool,
    pub rounds: &'r [Outcome],
}

impl Outcome {
    /// An outcome without results yet.
    pub fn of(number: usize, round: &Round) -> Self {
        Self {
            round: number,
            fault: round.fault.to_string(),
            after_orders: round.after_orders,
            delay_ms: whole_ms(round.delay),
            lasts_ms: whole_ms(round.lasts),
            met: None,
            held: true,
            problems: Vec::new(),
            orders: 0,
            unexpected: BTreeMap::new(),
            took_ms: 0,
        }
    }

    pub fn fail(&mut self, problem: impl Into<String>) {
        self.held = false;
        self.problems.push(problem.into());
    }

    /// Reads the report of the simulation.
    pub fn read_sale(&mut self, report: &Value) {
        let counts = |value: &Value| -> BTreeMap<String, u64> {
            let counts = value.as_object().into_iter().flatten();
            counts.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
        };
        self.orders = counts(&report["orders"]).values().sum();
        self.unexpected = counts(&report["unexpected"]["by_outcome"]);
    }

    /// Reads the result of the audit.
    pub fn read_audit(&mut self, audit: &Value) {
        let before = self.problems.len();
        for promise in audit["promises"].as_array().into_iter().flatten() {
            for breach in promise["breaches"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (what, first) = (text(&breach["what"]), text(&breach["named"][0]));
                self.fail(format!("promise {}: {what} ({}): {first}", promise["number"], breach["count"]));
            }
        }
        for moving in audit["still_moving"].as_array().into_iter().flatten() {
            self.fail(format!("still moving: {}", moving.as_str().unwrap_or_default()));
        }
        if audit["holds"] != true && self.problems.len() == before {
            self.fail("the audit does not hold");
        }
    }

    /// Formats the round as a line of the table, and one below it for each problem.
    pub fn lines(&self) -> String {
        let verdict = if self.held { "held" } else { "BROKEN" };
        let took = Duration::from_millis(self.took_ms);
        let unexpected: u64 = self.unexpected.values().sum();
        let met = match self.met {
            Some(true) => ", met",
            Some(false) => ", not met",
            None => "",
        };
        let mut lines = format!(
            "  {:>5}  {verdict:<7} {:>6} {unexpected:>10} {:>10}  {}{met}",
            self.round,
            self.orders,
            seconds(took),
            self.fault
        );
        for problem in &self.problems {
            lines.push_str("\n         ");
            lines.push_str(problem);
        }
        lines
    }
}

/// A duration in whole milliseconds, for JSON.
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("rounds are short")
}

impl<'r> Report<'r> {
    /// The report of these rounds.
    pub fn of(seed: u64, database: &'static str, rounds: &'r [Outcome]) -> Self {
        let held = !rounds.is_empty() && rounds.iter().all(|round| round.held);
        Self { seed, database, held, rounds }
    }

    /// The table of faults and verdicts.
    pub fn table(&self) -> String {
        let head =
            format!("  {:>5}  {:<7} {:>6} {:>10} {:>10}  fault", "round", "verdict", "orders", "unexpected", "took");
        let held = self.rounds.iter().filter(|round| round.held).count();
        let foot = format!("  {held} of {} rounds held, seed {} on {}", self.rounds.len(), self.seed, self.database);
        let rows = self.rounds.iter().map(Outcome::lines);
        std::iter::once(head).chain(rows).chain([foot]).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chaos::plan, replicas::Replicas};
    use serde_json::json;

    fn outcome() -> Outcome {
        Outcome::of(1, &plan::draw(1, &Replicas::default(), 1)[0])
    }

    #[test]
    fn breaches_and_moving_parts_are_problems_and_are_named() {
        let mut outcome = outcome();
        let breach = json!({"what": "charged twice", "count": 2, "named": ["pay_1", "pay_2"]});
        outcome.read_audit(&json!({
            "holds": false,
            "promises": [{"number": 1, "breaches": []}, {"number": 3, "breaches": [breach]}],
            "still_moving": ["1 orders on their way"],
        }));
        assert!(!outcome.held);
        assert_eq!(outcome.problems, ["promise 3: charged twice (2): pay_1", "still moving: 1 orders on their way"]);
        assert!(outcome.lines().contains("BROKEN") && outcome.lines().contains("pay_1"), "{}", outcome.lines());
    }

    #[test]
    fn unexpected_answers_are_counted_and_break_no_promise() {
        let mut outcome = outcome();
        outcome.read_sale(&json!({
            "orders": {"FULFILLED": 30, "EXPIRED": 4},
            "unexpected": {"count": 2, "by_outcome": {"UNAVAILABLE": 2}, "first": []},
        }));
        outcome.read_audit(&json!({"holds": true, "promises": [], "still_moving": []}));
        assert!(outcome.held);
        assert_eq!((outcome.orders, outcome.unexpected["UNAVAILABLE"]), (34, 2));
    }

    #[test]
    fn a_fault_that_nothing_has_met_is_named_and_breaks_no_promise() {
        let mut outcome = outcome();
        let fault = outcome.fault.clone();
        for (met, ending) in [(Some(true), ", met"), (Some(false), ", not met"), (None, fault.as_str())] {
            outcome.met = met;
            assert!(outcome.held && outcome.lines().ends_with(ending), "{}", outcome.lines());
            assert_eq!(serde_json::to_value(&outcome).expect("it has a JSON form")["met"], json!(met));
        }
    }

    #[test]
    fn an_audit_that_cannot_be_read_and_no_round_at_all_prove_nothing() {
        let mut outcome = outcome();
        outcome.read_audit(&json!({}));
        assert!(!outcome.held);
        assert!(!Report::of(1, "mysql", &[]).held);
        let report = Report::of(7, "mysql", std::slice::from_ref(&outcome));
        assert!(report.table().ends_with("0 of 1 rounds held, seed 7 on mysql"), "{}", report.table());
        assert_eq!(serde_json::to_value(&report).expect("it has a JSON form")["rounds"][0]["round"], 1);
    }
}
