//! Prints one line for each step, with the time it took. A spinner turns only where standard error is a terminal.
//! Results go to standard output, elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// A step under way. Dropped without [`Step::done`], it leaves no line: the error follows.
pub struct Step {
    name: String,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Begins a step; `doing` is shown next to the spinner.
    pub fn begin(name: &str, doing: &str) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| spinner(name, doing));
        Self { name: name.to_owned(), started: Instant::now(), spinner }
    }

    /// Ends the step with its one line: its outcome, and the time it took.
    pub fn done(mut self, outcome: &str) {
        self.clear();
        let took = seconds(self.started.elapsed());
        eprintln!("  {:<12} {outcome:<58} {took:>8}", self.name);
    }

    /// Hides the spinner for a program that writes to the terminal itself.
    pub fn pause(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}

fn spinner(name: &str, doing: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {prefix:<12} {msg} {elapsed}").expect("the template is well formed");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_prefix(name.to_owned());
    bar.set_message(doing.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Prints a line about the next step.
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// A duration as the status lines print it: `0.04 s`, `12.3 s`, `2 min 5 s`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0..10 => format!("{seconds:.2} s"),
        10..100 => format!("{seconds:.1} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// A number of bytes as people read it, in powers of 1024.
pub fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    match count {
        0..MIB => format!("{} KB", count >> 10),
        _ => format!("{} MB", count / MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        assert_eq!(seconds(Duration::from_millis(42)), "0.04 s");
        assert_eq!(seconds(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn bytes_read_well_at_every_size() {
        assert_eq!(bytes(2_048), "2 KB");
        assert_eq!(bytes(300 << 20), "300 MB");
    }
}
