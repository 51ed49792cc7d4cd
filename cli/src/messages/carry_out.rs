//! Prints the plan of a decision, and with `--yes` carries it out and waits for its result.

use super::{
    decide::{self, Act, Record, Verdict},
    outlook::Outlook,
    plan::{Chain, Plan},
    report::Report,
    schemas::Schemas,
    wait,
};
use crate::output::{Output, print_json, print_text};
use anyhow::Context;
use std::sync::Arc;

/// A decision under way.
pub struct Job<'j> {
    pub schemas: &'j Schemas,
    pub verdict: Verdict,
    pub act: &'j Act,
    /// The author and the reason; a dry run has none.
    pub record: Option<Arc<Record>>,
    pub output: Output,
}

impl Job<'_> {
    /// Prints the plan, carries it out, and prints the result. Returns whether that is as decided.
    pub async fn run(self, plan: Plan, outlooks: Vec<Outlook>) -> anyhow::Result<bool> {
        let chains = plan.chains.clone();
        let mut report = Report::of(plan, outlooks, self.verdict);
        if !self.output.json {
            print_text(report.plan_text())?;
        }
        let Some(record) = &self.record else {
            return self.print_plan(&report).map(|()| true);
        };
        let waited = !self.act.no_wait;
        self.change(&chains, record, &mut report).await?;
        match self.output.json {
            true => print_json(&report)?,
            false if chains.is_empty() => {}
            false => print_text(report.outcome_text(waited))?,
        }
        Ok(report.is_good(waited))
    }

    fn print_plan(&self, report: &Report) -> anyhow::Result<()> {
        match self.output.json {
            true => print_json(report),
            false if report.keys.is_empty() => Ok(()),
            false => print_text(report.hint()),
        }
    }

    async fn change(&self, chains: &[Chain], record: &Arc<Record>, report: &mut Report) -> anyhow::Result<()> {
        let mut decided = Vec::new();
        for chain in chains {
            let one = decide::decide(self.schemas, chain, self.verdict, record).await;
            let one = one.with_context(|| format!("{} keys were decided on, and then", decided.len()))?;
            decided.push(one);
        }
        let outcomes = wait::wait(self.schemas, &decided, self.act, self.output).await?;
        report.done((**record).clone(), decided, outcomes);
        Ok(())
    }
}
