//! `cargo xtask clients`: generates the clients in other languages from the contracts and builds them. `cargo xtask
//! test clients` also runs each against a mesh of its own. A language whose tools are missing is skipped.

mod recipe;
#[cfg(test)]
mod settings;
mod stage;
mod toolchain;

use crate::{
    cli::{ClientsArgs, Database, Language},
    interrupt,
    ui::{say, seconds},
    workspace::Workspace,
};
use anyhow::bail;
use clap::ValueEnum;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// The name by which `cargo xtask test` knows this.
pub const NAME: &str = "clients";

/// Builds the client in the language that was named, or in each whose tools are here.
pub fn run(workspace: &Workspace, args: &ClientsArgs) -> anyhow::Result<ExitCode> {
    let report = match args.language {
        Some(language) => {
            let missing = toolchain::missing(language);
            if !missing.is_empty() {
                bail!("the client in {} {}", language.name(), toolchain::explain(&missing));
            }
            build_each(workspace, &[language])?
        }
        None => build_each(workspace, Language::value_variants())?,
    };
    report.print();
    Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Builds each client and runs it against a mesh. Fails too if every language was skipped: nothing would be proved.
pub fn test(workspace: &Workspace, database: Database) -> anyhow::Result<ExitCode> {
    let mut report = build_each(workspace, Language::value_variants())?;
    if report.has_done() {
        stage::with(workspace, database, |stage, fleet| {
            for (language, outcome) in &mut report.rows {
                if matches!(outcome, Outcome::Done(_)) {
                    say(&format!("\n=== {}", language.name()));
                    *outcome = attempt(*language, || stage.run(fleet, recipe::story(workspace, *language)))?;
                }
            }
            Ok(!report.has_failed())
        })?;
    }
    report.print();
    Ok(if report.has_done() && !report.has_failed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The outcome of one client.
#[derive(Debug)]
enum Outcome {
    /// It passed, in this time.
    Done(Duration),
    /// It was skipped, since these tools are missing.
    LeftOut(String),
    /// It failed. The error was printed where it happened.
    Failed,
}

/// The outcomes of all clients.
#[derive(Debug, Default)]
struct Report {
    rows: Vec<(Language, Outcome)>,
}

impl Report {
    fn has_done(&self) -> bool {
        self.rows.iter().any(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
    }

    fn has_failed(&self) -> bool {
        self.rows.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed))
    }

    fn print(&self) {
        println!();
        for (language, outcome) in &self.rows {
            println!("  {:<12} {}", language.name(), outcome.describe());
        }
        println!();
    }
}

impl Outcome {
    fn describe(&self) -> String {
        match self {
            Self::Done(took) => format!("{:<10} {:>10}", "ok", seconds(*took)),
            Self::LeftOut(why) => format!("left out   {why}"),
            Self::Failed => "FAILED".to_owned(),
        }
    }
}

/// Builds clients one after another, also after a failure.
fn build_each(workspace: &Workspace, languages: &[Language]) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for language in languages {
        let missing = toolchain::missing(*language);
        let outcome = if missing.is_empty() {
            attempt(*language, || recipe::build(workspace, *language))?
        } else {
            Outcome::LeftOut(toolchain::explain(&missing))
        };
        report.rows.push((*language, outcome));
    }
    Ok(report)
}

/// Runs one step of one client, and turns its error into an outcome. Only an interrupt is an error for all.
fn attempt(language: Language, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let outcome = work();
    interrupt::check()?;
    Ok(match outcome {
        Ok(()) => Outcome::Done(started.elapsed()),
        Err(error) => {
            say(&format!("{}: {error:#}", language.name()));
            Outcome::Failed
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_fails_the_whole_and_one_that_is_left_out_does_not() {
        let mut report = Report::default();
        report.rows.push((Language::Java, Outcome::LeftOut("needs Maven".into())));
        assert!(!report.has_done() && !report.has_failed());
        let done = attempt(Language::Go, || Ok(())).expect("nobody interrupts");
        report.rows.push((Language::Go, done));
        assert!(report.has_done() && !report.has_failed());
        let failed = attempt(Language::Python, || bail!("broken")).expect("nobody interrupts");
        report.rows.push((Language::Python, failed));
        assert!(report.has_failed());
        assert!(report.rows[0].1.describe().contains("Maven"));
    }
}
