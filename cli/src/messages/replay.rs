//! `stampede messages replay`: lets a service apply dead letters again, whole keys in their order.

use super::{
    carry_out::Job,
    decide::{Act, Verdict},
    filter::{Filter, Target},
    id::LetterId,
    plan,
    schemas::{Schemas, Server},
};
use crate::output::Output;

/// Let dead letters be applied again, once: each key with all that waits behind it, in its order.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede messages replay payment-17
  stampede messages replay payment-17 --yes --why 'the price list is mended'
  stampede messages replay --consumer inventory --type OrderExpired --limit 500 --yes --why 'runs 1.4 now'

First mend the cause, mostly by a version that can take the message. Without --yes nothing is changed. The service has
to run: it applies the letters within a second or two. If one fails again it waits for another decision, with all behind
it.

Exit code 0: all took effect, or nothing was to be changed. 1: something failed, was not over at the deadline, or
somebody else had decided. 2: it could not do its work.")]
pub struct Args {
    /// A dead letter that `messages list` prints; its whole key is replayed
    #[arg(value_name = "ID")]
    id: Option<LetterId>,

    #[command(flatten)]
    filter: Filter,

    /// Most keys to replay
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    #[command(flatten)]
    act: Act,

    #[command(flatten)]
    server: Server,
}

/// Replays. Returns whether all took effect.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let target = Target::of(args.id, &args.filter, &args.server.kafka_topic_prefix)?;
    let record = args.act.decision()?;
    let schemas = Schemas::new(&args.server);
    let plan = plan::whole_keys(&schemas, &target, args.limit as usize).await?;
    let job = Job { schemas: &schemas, verdict: Verdict::Replay, act: &args.act, record, output };
    job.run(plan, Vec::new()).await
}
