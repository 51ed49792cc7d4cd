//! Reads the samples that JMeter recorded, and sums them up by label.

use anyhow::{Context, bail};
use std::{collections::BTreeMap, fs, path::Path};

/// All samples of one label.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The request and its answer: `claim ISSUED`.
    pub label: String,
    pub count: usize,
    pub p50_ms: u64,
    /// Time that one in a hundred exceeds, in milliseconds.
    pub p99_ms: u64,
    /// Number of unexpected answers.
    pub failed: usize,
}

#[derive(Debug)]
pub struct Summary {
    /// By label.
    pub lines: Vec<Line>,
    /// From the first sample's start to the last one's, in milliseconds.
    pub lasted_ms: u64,
}

impl Summary {
    /// Whether every answer was an expected one, and there were some.
    pub fn is_as_expected(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.failed == 0)
    }

    /// All of it in one line.
    pub fn headline(&self) -> String {
        let count: usize = self.lines.iter().map(|line| line.count).sum();
        let failed: usize = self.lines.iter().map(|line| line.failed).sum();
        format!("{count} samples in {} ms, {failed} failed", self.lasted_ms)
    }
}

/// Sums up a file of samples.
pub fn summarise(file: &Path) -> anyhow::Result<Summary> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    sum_up(&text).with_context(|| format!("{} is no file of samples", file.display()))
}

fn sum_up(text: &str) -> anyhow::Result<Summary> {
    let mut rows = rows(text).into_iter();
    let header = rows.next().context("it is empty")?;
    let column =
        |name: &str| header.iter().position(|title| title == name).with_context(|| format!("no column {name}"));
    let (label, elapsed, success, started) =
        (column("label")?, column("elapsed")?, column("success")?, column("timeStamp")?);
    let mut by_label: BTreeMap<String, (Vec<u64>, usize)> = BTreeMap::new();
    let mut starts = Vec::new();
    for row in rows {
        let (Some(label), Some(Ok(elapsed)), Some(Ok(start))) =
            (row.get(label), row.get(elapsed).map(|ms| ms.parse()), row.get(started).map(|at| at.parse::<u64>()))
        else {
            bail!("a row has too few columns: {}", row.join(","));
        };
        let (times, failed) = by_label.entry(label.clone()).or_default();
        times.push(elapsed);
        *failed += usize::from(row.get(success).is_none_or(|success| success != "true"));
        starts.push(start);
    }
    let lasted_ms = starts.iter().max().copied().unwrap_or(0) - starts.iter().min().copied().unwrap_or(0);
    Ok(Summary { lines: by_label.into_iter().map(line).collect(), lasted_ms })
}

fn line((label, (mut times, failed)): (String, (Vec<u64>, usize))) -> Line {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Line { label, count: times.len(), p50_ms: at(50), p99_ms: at(99), failed }
}

/// The rows of a CSV text: a quoted field may have commas, doubled quotes and line ends in it.
fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            other => field.push(other),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &str = "timeStamp,elapsed,label,responseMessage,success\n\
        1000,5,claim ISSUED,Created,true\n\
        1500,9,claim ISSUED,Created,true\n\
        3000,2,claim,\"said \"\"no\"\",\nand more\",false\n";

    #[test]
    fn samples_are_summed_up_by_label() {
        let summary = sum_up(SAMPLES).expect("well formed");
        assert_eq!(summary.lasted_ms, 2_000);
        let issued = Line { label: "claim ISSUED".into(), count: 2, p50_ms: 9, p99_ms: 9, failed: 0 };
        let failed = Line { label: "claim".into(), count: 1, p50_ms: 2, p99_ms: 2, failed: 1 };
        assert_eq!(summary.lines, [failed, issued]);
        assert!(!summary.is_as_expected());
    }

    #[test]
    fn no_samples_are_no_success() {
        assert!(!sum_up("timeStamp,elapsed,label,success\n").expect("well formed").is_as_expected());
        assert!(sum_up("a,b\n1,2\n").is_err() && sum_up("").is_err());
    }
}
