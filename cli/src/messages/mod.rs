//! `stampede messages`: messages on their way between the services, those that could not be applied, and decisions on
//! them.
//!
//! It works on the tables of the services, while they run. A decision is only recorded here, with its author and the
//! reason; the service that has set a message aside carries it out.

mod carry_out;
pub(crate) mod decide;
mod decisions;
mod discard;
mod filter;
mod id;
mod lag;
mod letter;
mod list;
mod outlook;
mod payload;
mod plan;
mod replay;
mod report;
pub(crate) mod schemas;
mod show;
pub(crate) mod text;
mod wait;

use crate::output::Output;
use clap::Subcommand;

/// List messages that wait between the services, and decide on those that could not be applied.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples, next to a running `cargo xtask up`:
  . .stampede/up/secrets.env
  stampede messages lag
  stampede messages list
  stampede messages replay payment-17 --yes --why 'mended by 1.4.1'")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// A command on messages.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Count messages to be sent and to be read, parked keys and dead letters
    Lag(lag::Args),
    /// List dead letters
    List(list::Args),
    /// Show one dead letter: its headers, its payload, the decision on it, and the letters behind it
    Show(show::Args),
    /// Let dead letters be applied again, once: each key with all that waits behind it, in its order
    Replay(replay::Args),
    /// Skip dead letters for good
    Discard(discard::Args),
}

/// Runs the command. Returns whether all is as it should be.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    match args.verb {
        Verb::Lag(args) => lag::run(args, output).await.map(|()| true),
        Verb::List(args) => list::run(args, output).await.map(|()| true),
        Verb::Show(args) => show::run(args, output).await.map(|()| true),
        Verb::Replay(args) => replay::run(args, output).await,
        Verb::Discard(args) => discard::run(args, output).await,
    }
}
