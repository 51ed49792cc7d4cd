//! `stampede payments show`: everything about one anomaly.

use super::anomaly;
use crate::{
    messages::schemas::{Schemas, Server},
    output::{Output, print_json, print_text},
};
use anyhow::Context;

/// Show one anomaly: the provider's record, the state of its payment, and the decisions that are possible.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede payments show 17
  stampede payments show 17 -o json | jq '.verdicts'")]
pub struct Args {
    /// Id of the anomaly, as `payments list` prints it
    #[arg(value_name = "ID")]
    id: i64,

    #[command(flatten)]
    server: Server,
}

/// Prints it.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let schemas = Schemas::new(&args.server);
    let found = anomaly::find(&schemas, args.id).await?;
    let found = found.with_context(|| format!("there is no anomaly {}: see `stampede payments list`", args.id))?;
    if output.json { print_json(&found) } else { print_text(found.to_string().trim_end()) }
}
