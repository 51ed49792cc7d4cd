//! What the reader sees: one line a promise, and below a broken one what breaks it.

use super::verdict::{Audit, Promise};
use crate::output::{Output, print_json};
use anyhow::Context;
use std::{fmt::Write, fs, path::Path};

/// Prints the audit on stdout.
pub fn print(audit: &Audit, output: Output) -> anyhow::Result<()> {
    if output.json {
        return print_json(audit);
    }
    print!("{}", text(audit));
    Ok(())
}

/// Writes the audit as JSON to `file`.
pub fn write_json(audit: &Audit, file: &Path) -> anyhow::Result<()> {
    fs::write(file, serde_json::to_vec_pretty(audit)?).with_context(|| format!("{} cannot be written", file.display()))
}

fn text(audit: &Audit) -> String {
    let mut text = String::new();
    for moving in &audit.restless {
        writeln!(text, "still moving when the wait was over: {moving}").expect("a string takes all");
    }
    for promise in &audit.promises {
        line(&mut text, promise);
    }
    let kept = audit.promises.iter().filter(|promise| promise.holds).count();
    writeln!(text, "{kept} of {} promises hold", audit.promises.len()).expect("a string takes all");
    text
}

fn line(text: &mut String, promise: &Promise) {
    let verdict = if promise.holds { "PASS" } else { "FAIL" };
    let figures: Vec<_> = promise.figures.iter().map(|figure| format!("{} {}", figure.name, figure.value)).collect();
    writeln!(text, "{verdict}  {}. {}: {}", promise.number, promise.promise, figures.join(", "))
        .expect("a string takes all");
    for breach in &promise.breaches {
        writeln!(text, "      {} ({}):", breach.what, breach.count).expect("a string takes all");
        for name in &breach.named {
            writeln!(text, "        {name}").expect("a string takes all");
        }
        if breach.count > breach.named.len() {
            writeln!(text, "        ... and {} more", breach.count - breach.named.len()).expect("a string takes all");
        }
    }
}
