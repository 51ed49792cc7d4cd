//! Prints an audit: one line a promise, and below a broken one its breaches.

use super::{
    named::MOST_NAMED,
    verdict::{Audit, Promise},
};
use crate::output::{Output, print_json, print_text};
use anyhow::Context;
use std::{fmt::Write, fs, path::Path};

/// Most breaches of one kind that are printed for people; JSON has up to [`MOST_NAMED`].
const PRINTED: usize = 20;

/// Prints the audit on stdout.
pub fn print(audit: &Audit, output: Output) -> anyhow::Result<()> {
    if output.json {
        return print_json(audit);
    }
    print_text(text(audit).trim_end())
}

/// Writes the audit as JSON to `file`.
pub fn write_json(audit: &Audit, file: &Path) -> anyhow::Result<()> {
    fs::write(file, serde_json::to_vec_pretty(audit)?).with_context(|| format!("{} cannot be written", file.display()))
}

fn text(audit: &Audit) -> String {
    let mut text = String::new();
    for promise in &audit.promises {
        line(&mut text, promise);
    }
    for what in &audit.left_out {
        writeln!(text, "not compared: {what}").expect("a string takes all");
    }
    for moving in &audit.still_moving {
        writeln!(text, "still moving when the wait was over: {moving}").expect("a string takes all");
    }
    let kept = audit.promises.iter().filter(|promise| promise.holds).count();
    let proven =
        if audit.still_moving.is_empty() { "" } else { " so far, but the mesh still moves: nothing is proven" };
    writeln!(text, "{kept} of {} promises hold{proven}", audit.promises.len()).expect("a string takes all");
    text
}

fn line(text: &mut String, promise: &Promise) {
    let verdict = if promise.holds { "PASS" } else { "FAIL" };
    let figures: Vec<_> = promise.figures.iter().map(|figure| format!("{} {}", figure.name, figure.value)).collect();
    writeln!(text, "{verdict}  {}. {}: {}", promise.number, promise.promise, figures.join(", "))
        .expect("a string takes all");
    for breach in &promise.breaches {
        let count = breach.found.count();
        writeln!(text, "      {} ({count}):", breach.what).expect("a string takes all");
        for name in breach.found.names().iter().take(PRINTED) {
            writeln!(text, "        {name}").expect("a string takes all");
        }
        if count > PRINTED {
            writeln!(text, "        ... and {} more, the first {MOST_NAMED} with -o json", count - PRINTED)
                .expect("a string takes all");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_breaches_are_cut_short_for_people_only() {
        let mut audit = Audit::new(Vec::new());
        audit.breach(2, "a rank given twice", (0..25).map(|n| format!("cmp_{n}")).collect());
        let text = text(&audit);
        assert!(text.contains("cmp_19\n        ... and 5 more") && !text.contains("cmp_20"), "{text}");
        assert!(text.contains("FAIL  2.") && text.contains("7 of 8 promises hold\n"), "{text}");
        assert_eq!(serde_json::to_value(&audit).unwrap()["promises"][1]["breaches"][0]["named"][24], "cmp_24");
    }

    #[test]
    fn a_mesh_that_moves_is_said_to_prove_nothing() {
        let text = text(&Audit::new(vec!["3 holds".into()]));
        assert!(text.contains("still moving when the wait was over: 3 holds\n"), "{text}");
        assert!(text.ends_with("8 of 8 promises hold so far, but the mesh still moves: nothing is proven\n"), "{text}");
    }
}
