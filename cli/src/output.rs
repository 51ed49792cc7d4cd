//! The output of results and progress.

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, LineStyle, Row, Table, TableStyle};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines and tables for people
    Text,
    /// One JSON document
    Json,
}

/// The output of this run.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Results are one JSON document on stdout.
    pub json: bool,
    /// Stderr is a terminal, so a live picture makes sense.
    pub progress: bool,
}

impl Output {
    /// Returns the output in `format`, with progress if stderr is a terminal.
    pub fn new(format: Format) -> Self {
        Self { json: format == Format::Json, progress: io::stderr().is_terminal() }
    }
}

/// Prints a result on stdout. A closed pipe, as behind `| head`, is no error.
pub fn print_text(text: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("stdout cannot be written to"),
        _ => Ok(()),
    }
}

/// Prints `value` as JSON on stdout.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_text(serde_json::to_string_pretty(value)?)
}

/// Prints the error of a failed command as JSON on stdout.
pub fn print_json_error(message: &str) {
    // The error is on stderr as well; there is nothing else to do about a closed stdout.
    drop(print_json(&serde_json::json!({"error": {"message": message}})));
}

/// Returns a table with a line under its header only: names left-aligned, figures right-aligned.
pub fn table<const NAMES: usize, const FIGURES: usize>(names: [&str; NAMES], figures: [&str; FIGURES]) -> Table {
    let mut table = Table::new();
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(style).set_header(row(names, figures));
    table
}

/// Returns a row of such a table.
pub fn row<const NAMES: usize>(names: [&str; NAMES], figures: impl IntoIterator<Item: Display>) -> Row {
    let figures = figures.into_iter().map(|figure| Cell::new(figure).set_alignment(CellAlignment::Right));
    names.into_iter().map(Cell::new).chain(figures).collect::<Vec<_>>().into()
}

/// Sends logs to stderr; `RUST_LOG` chooses which, such as `info` or `warn,stampede_db=debug`; by default warnings.
pub fn init_logs() {
    let named = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, unreadable) = match named.map(|text| text.replace(' ', "").trim_matches(',').parse::<Targets>()) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (warnings(), Some(error)),
        None => (warnings(), None),
    };
    let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).without_time();
    tracing_subscriber::registry().with(layer).with(filter).init();
    if let Some(error) = unreadable {
        tracing::warn!(error.cause = %error, "RUST_LOG cannot be read: showing warnings");
    }
}

fn warnings() -> Targets {
    Targets::new().with_default(LevelFilter::WARN)
}
