//! `stampede messages discard`: skips dead letters for good, and prints the consequences before.

use super::{
    carry_out::Job,
    decide::{Act, Verdict},
    filter::{Filter, Target},
    id::LetterId,
    outlook, plan,
    schemas::{Schemas, Server},
};
use crate::output::Output;

/// Skip dead letters for good: they never take effect, and once none of a key waits any more, the key goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede messages discard order-17
  stampede messages discard order-17 --yes --why 'was charged at another provider, refunded there'
  stampede messages discard --key ord_01j9z4n5k6m7p8q9r0s1t2v3w4 --yes --why 'a test order'

Without --yes nothing is changed: it says how the order is now, and how its money and units come to their end without
the message. An ID is that letter and its repeats, in which the same message came again: what else waits behind it goes
on waiting, to be replayed or discarded. So a replay that fails over and over can be taken back. There is no way back
from here.

Exit code 0: all were skipped, or nothing was to be changed. 1: a key was not let go before the deadline, or somebody
else had decided. 2: it could not do its work.")]
pub struct Args {
    /// A dead letter that `messages list` prints
    #[arg(value_name = "ID")]
    id: Option<LetterId>,

    #[command(flatten)]
    filter: Filter,

    /// Most letters to discard
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    #[command(flatten)]
    act: Act,

    #[command(flatten)]
    server: Server,
}

/// Discards. Returns whether all were skipped.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let target = Target::of(args.id, &args.filter, &args.server.kafka_topic_prefix)?;
    let record = args.act.decision()?;
    let schemas = Schemas::new(&args.server);
    let plan = plan::letters(&schemas, &target, args.limit as usize).await?;
    let outlooks = outlook::read(&schemas, &plan).await?;
    let job = Job { schemas: &schemas, verdict: Verdict::Discard, act: &args.act, record, output };
    job.run(plan, outlooks).await
}
