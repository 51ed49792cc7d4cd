//! `stampede payments`: what the payment provider says and the payments cannot be, and the way out of it.
//!
//! It works on the tables of the payment service, while that runs. A decision is only written down here, with who and
//! why; the payment service carries it out. None approves a charge.

mod anomaly;
mod list;
mod settle;
mod settle_kind;
mod show;

use crate::output::Output;
use clap::Subcommand;

/// See charges and refunds that are parked, and settle them.
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

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// List anomalies of charges and refunds
    List(list::Args),
    /// Show one anomaly: what the provider said, how its payment stands, and what can be decided
    Show(show::Args),
    /// Decide on an anomaly, or on all of a kind
    Settle(settle::Args),
}

/// Obeys, and returns whether all is as it should be.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    match args.verb {
        Verb::List(args) => list::run(args, output).await.map(|()| true),
        Verb::Show(args) => show::run(args, output).await.map(|()| true),
        Verb::Settle(args) => settle::run(args, output).await,
    }
}
