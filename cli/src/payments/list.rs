//! `stampede payments list`: the anomalies of charges and refunds, a page at a time.

use super::anomaly::{Anomaly, anomalies_table, read};
use crate::{
    messages::schemas::{Schemas, Server},
    output::{Output, print_json, print_text},
};
use clap::ValueEnum;
use serde::Serialize;

/// List anomalies in the order in which they were found.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede payments list
  stampede payments list --state all -o json | jq '.anomalies[].detail'")]
pub struct Args {
    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE", default_value_t = StateFilter::Open)]
    state: StateFilter,

    /// Most of them to print
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    /// Only those behind this one, which was the last of the page before
    #[arg(long, value_name = "ID", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,

    #[command(flatten)]
    server: Server,
}

/// The state of anomalies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateFilter {
    /// Nobody has decided, or it is not carried out yet
    Open,
    /// Done with
    Settled,
    /// In any state
    All,
}

impl StateFilter {
    const fn condition(self) -> &'static str {
        match self {
            Self::Open => " AND a.state IN ('OPEN', 'DECIDED')",
            Self::Settled => " AND a.state = 'SETTLED'",
            Self::All => "",
        }
    }
}

#[derive(Debug, Serialize)]
struct Page {
    anomalies: Vec<Anomaly>,
    /// The value of `--after` for the next page; none on the last.
    next_after: Option<i64>,
}

/// Prints a page.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let schemas = Schemas::new(&args.server);
    let most = args.limit as usize;
    let mut anomalies = read(&schemas, |query| {
        query.push("a.id > ").push_bind(args.after).push(args.state.condition());
        query.push(" ORDER BY a.id LIMIT ").push_bind(most + 1);
    })
    .await?;
    let has_more = anomalies.len() > most;
    anomalies.truncate(most);
    let next_after = anomalies.last().map(|last| last.id).filter(|_| has_more);
    let page = Page { anomalies, next_after };
    if output.json {
        return print_json(&page);
    }
    if page.anomalies.is_empty() {
        return print_text("no anomalies");
    }
    print_text(anomalies_table(&page.anomalies))?;
    match page.next_after {
        Some(last) => print_text(format_args!("there are more: --after {last}")),
        None => Ok(()),
    }
}
