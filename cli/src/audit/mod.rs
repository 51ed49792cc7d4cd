//! `stampede audit`: waits until the mesh is quiet, then checks every promise against the stored data.
//!
//! It only reads. Each check queries for breaches of a promise: the promise holds if there are no rows. They are
//! counted, and the first of them named. While something still moves nothing is proven, so then the audit fails as
//! well.

mod acknowledged;
mod checks;
mod coupons;
mod messages;
mod named;
mod provider;
mod quiet;
mod report;
mod retention;
mod sources;
mod stock;
mod verdict;

use crate::output::Output;
use retention::Retention;
use sources::Sources;
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;
use verdict::Audit;

/// Check every promise against the databases, Redis, Kafka and the payment provider.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example, next to a running `cargo xtask up`:
  . .stampede/up/secrets.env
  stampede audit
  stampede audit -o json | jq '.promises[] | select(.holds | not)'")]
pub struct Args {
    /// The database server, without a schema, with the right to read: mysql://user:password@host:port
    #[arg(long, env = "STAMPEDE_ADMIN_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Prefix of schema names
    #[arg(long, env = "STAMPEDE_SCHEMA_PREFIX", default_value = "stampede_")]
    pub schema_prefix: String,

    /// The Redis of stock and coupons: redis://host:port or redis-cluster://host:port,...
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: String,

    /// Prefix of key names
    #[arg(long, env = "STAMPEDE_REDIS_KEY_PREFIX", default_value = "")]
    pub redis_key_prefix: String,

    /// Kafka's addresses, comma separated
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    pub kafka_brokers: String,

    /// Prefix of topic names
    #[arg(long, env = "STAMPEDE_KAFKA_TOPIC_PREFIX", default_value = "stampede")]
    pub kafka_topic_prefix: String,

    /// The payment provider whose records are compared; without it that comparison is left out, and named as such
    #[arg(long, env = "STAMPEDE_PROVIDER_URL")]
    pub provider_url: Option<String>,

    /// Orders and coupons acknowledged to buyers, as `simulate --acknowledged FILE` wrote them: each must still be
    /// there, and no order may be back in a state that it had left
    #[arg(long, value_name = "FILE")]
    pub acknowledged: Option<PathBuf>,

    /// Longest wait until nothing moves any more, in seconds; if something still moves then, the audit fails. What is
    /// found while messages are written is looked at again within the same time
    #[arg(long, default_value_t = 60)]
    pub quiet_deadline_s: u64,

    /// Latest opening and closing that keeps the promise (p99), in milliseconds
    #[arg(long, default_value_t = 50)]
    pub open_within_ms: u64,

    /// Rows of a large table that one statement covers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub page_rows: u32,

    /// Also write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Audits, prints one line a promise, and returns whether all hold and nothing moved meanwhile.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let sources = Sources::connect(&args).await?;
    let audit = audit(&sources, &args, output).await?;
    if let Some(file) = &args.json {
        report::write_json(&audit, file)?;
    }
    report::print(&audit, output)?;
    Ok(audit.holds)
}

/// Waits until the mesh is quiet and examines it, anew if something moved meanwhile, such as an event that closed,
/// until the deadline.
async fn audit(sources: &Sources, args: &Args, output: Output) -> anyhow::Result<Audit> {
    let (retention, until) = (Retention::now(), Instant::now() + Duration::from_secs(args.quiet_deadline_s));
    loop {
        let still_moving = quiet::wait(sources, until, output).await?;
        let written = quiet::last_messages(sources).await?;
        let mut audit = examine(sources, args, output, (retention, still_moving)).await?;
        // Each statement has another snapshot, so a breach may have been in transit between two of them.
        let has_moved = !audit.holds && quiet::last_messages(sources).await? != written;
        if !has_moved || Instant::now() >= until {
            if has_moved {
                audit.moved("messages that were written while the tables were read");
            }
            return Ok(audit);
        }
        if !output.json {
            eprintln!("messages were written while the tables were read: reading them again");
        }
    }
}

async fn examine(
    sources: &Sources,
    args: &Args,
    output: Output,
    (retention, still_moving): (Retention, Vec<String>),
) -> anyhow::Result<Audit> {
    let mut audit = Audit::new(still_moving);
    checks::run(sources, args.page_rows, output, &mut audit).await?;
    checks::punctuality(sources, args.open_within_ms, &mut audit).await?;
    stock::compare(sources, &mut audit).await?;
    coupons::compare(sources, &mut audit).await?;
    provider::compare(sources, args.provider_url.as_deref(), &mut audit).await?;
    messages::compare(sources, args, retention, &mut audit).await?;
    acknowledged::compare(sources, args.acknowledged.as_deref(), &mut audit).await?;
    Ok(audit)
}

/// Returns an id as `UNHEX` reads it.
fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02X}")).collect()
}
