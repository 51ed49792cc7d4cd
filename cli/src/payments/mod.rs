//! `stampede payments`: anomalies, where the payment provider's records contradict the payments, and decisions on them.
//!
//! It works on the tables of the payment service, while that runs. A decision is only recorded here, with its author
//! and the reason; the payment service carries it out. None approves a charge.

mod anomaly;
mod list;
mod settle;
mod settle_kind;
mod show;

use crate::output::Output;
use clap::Subcommand;

/// List charges and refunds that are parked, and settle them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples, next to a running `cargo xtask up`:
  . .stampede/up/secrets.env
  stampede payments list
  stampede payments show 17
  stampede payments settle 17 --as retry --yes --why 'the provider has mended it'
  stampede payments settle --kind REFUSED --as retry --yes --why 'the proxy answered 404'")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// A command on anomalies.
#[derive(Debug, Subcommand)]
enum Verb {
    /// List anomalies of charges and refunds
    List(list::Args),
    /// Show one anomaly: the provider's record, the state of its payment, and the decisions that are possible
    Show(show::Args),
    /// Decide on an anomaly, or on all of a kind
    Settle(settle::Args),
}

/// Runs the command. Returns whether all is as it should be.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    match args.verb {
        Verb::List(args) => list::run(args, output).await.map(|()| true),
        Verb::Show(args) => show::run(args, output).await.map(|()| true),
        Verb::Settle(args) => settle::run(args, output).await,
    }
}
