//! `stampede payments settle`: records a decision on an anomaly, with its author and the reason, and waits until the
//! payment service has carried it out.

use super::{
    anomaly::{self, Anomaly, Verdict},
    settle_kind,
};
use crate::{
    messages::{
        decide::{Act, Record},
        schemas::{Schemas, Server},
    },
    output::{Output, print_json, print_text},
};
use anyhow::{Context, bail, ensure};
use rand::random_range;
use serde::Serialize;
use stampede_db::Statement;
use stampede_vocab::{Service, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Time between two polls, less a random part of up to half.
const POLL_INTERVAL: Duration = Duration::from_millis(400);

/// Decide on an anomaly, or on all of a kind.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede payments settle 17 --as retry
  stampede payments settle 17 --as declined --yes --why 'given back by hand at the provider, re_81'
  stampede payments settle 18 --as noted --yes --why 'a goodwill refund of a part'
  stampede payments settle 19 --as refunded --yes --why 'given back by hand, the goods are back: ticket 4711'
  stampede payments settle --kind REFUSED --as retry --yes --why 'the proxy answered 404'

Without --yes nothing is changed: it says what would be. Nothing approves a charge but the provider's own answer, for which
`--as retry` queries it again. Read the provider's records before `--as declined` and `--as refunded`: these are final.

Exit code 0: it is settled, or nothing was to be changed. 1: it was not carried out before the deadline, or somebody else
had decided, or the provider had reported the end before. 2: it could not do its work.")]
pub struct Args {
    /// Id of the anomaly, as `payments list` prints it
    #[arg(value_name = "ID", required_unless_present = "kind")]
    id: Option<i64>,

    /// All that is parked for this reason, the oldest first; with --as retry alone
    #[arg(long, value_name = "KIND", conflicts_with = "id", value_parser = settle_kind::PARKED_KINDS)]
    kind: Option<String>,

    /// Most of a kind to decide on
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,

    /// The decision
    #[arg(long = "as", value_enum, value_name = "DECISION")]
    pub verdict: Verdict,

    #[command(flatten)]
    pub act: Act,

    #[command(flatten)]
    pub server: Server,
}

/// The result of a decision.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    /// None if nothing was changed.
    decided: Option<Record>,
    /// Whether it was carried out as decided.
    is_settled: bool,
    anomaly: Anomaly,
}

/// Decides. Returns whether that was carried out.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    match (args.id, &args.kind) {
        (Some(id), _) => settle_one(&args, id, output).await,
        (None, Some(kind)) => settle_kind::run(&args, kind, output).await,
        (None, None) => bail!("say which: an id, or --kind"),
    }
}

async fn settle_one(args: &Args, id: i64, output: Output) -> anyhow::Result<bool> {
    let record = args.act.decision()?;
    let schemas = Schemas::new(&args.server);
    let found = find(&schemas, id).await?;
    if found.state != "OPEN" {
        return report(args.verdict, None, false, found, output).map(|()| false);
    }
    ensure!(
        found.verdicts.contains(&args.verdict),
        "--as {} does not fit anomaly {id}: see `stampede payments show {id}`",
        args.verdict.as_str().to_ascii_lowercase(),
    );
    let Some(record) = record else {
        return report(args.verdict, None, false, found, output).map(|()| true);
    };
    if decide(&schemas, &[id], args.verdict, &record).await? == 0 {
        let now = find(&schemas, id).await?;
        return report(args.verdict, None, false, now, output).map(|()| false);
    }
    let now = wait(&schemas, id, &args.act).await?;
    let is_settled = now.is_settled_as(args.verdict);
    report(args.verdict, Some((*record).clone()), is_settled, now, output)?;
    Ok(is_settled || args.act.no_wait)
}

async fn find(schemas: &Schemas, id: i64) -> anyhow::Result<Anomaly> {
    let found = anomaly::find(schemas, id).await?;
    found.with_context(|| format!("there is no anomaly {id}: see `stampede payments list`"))
}

/// Records the decision on these. Returns the number without an earlier decision.
pub async fn decide(schemas: &Schemas, ids: &[i64], verdict: Verdict, record: &Arc<Record>) -> anyhow::Result<u64> {
    let (ids, record, at_us) = (ids.to_vec(), record.clone(), Timestamp::now().micros());
    let decided = schemas.of(Service::Payment).await?.transact("decide_on_anomalies", move |conn| {
        let mut update = Statement::new("UPDATE anomalies SET state = 'DECIDED', verdict = ");
        update.push_bind(verdict.as_str()).push(", decided_by = ").push_bind(&record.by);
        update.push(", decided_why = ").push_bind(&record.why).push(", decided_us = ").push_bind(at_us);
        update.push(" WHERE state = 'OPEN' AND id IN ").push_list(&ids);
        Box::pin(async move { update.execute(conn).await })
    });
    decided.await.context("no decision was written")
}

/// Sleeps until the next poll.
pub async fn pause() {
    sleep(POLL_INTERVAL.mul_f64(random_range(0.5..1.0))).await;
}

/// Waits until the decision is carried out, or the deadline is over. Returns the anomaly as it is then.
async fn wait(schemas: &Schemas, id: i64, act: &Act) -> anyhow::Result<Anomaly> {
    let until = Instant::now() + Duration::from_secs(act.deadline_s);
    loop {
        let now = find(schemas, id).await?;
        if now.state == "SETTLED" || act.no_wait || Instant::now() >= until {
            return Ok(now);
        }
        pause().await;
    }
}

fn report(
    verdict: Verdict,
    decided: Option<Record>,
    is_settled: bool,
    anomaly: Anomaly,
    output: Output,
) -> anyhow::Result<()> {
    if output.json {
        return print_json(&Report { verdict, decided, is_settled, anomaly });
    }
    print_text(anomaly.to_string().trim_end())?;
    let outcome = match (decided.is_some(), is_settled, anomaly.state.as_str()) {
        (true, true, _) => "settled".to_owned(),
        (true, false, "SETTLED") => "not carried out: the provider had reported the end before".to_owned(),
        (true, false, _) => "decided; the payment service has not carried it out yet".to_owned(),
        (false, _, "OPEN") => format!("would be: {}. Nothing was changed: add --yes --why TEXT", verdict.effect()),
        (false, ..) => "nothing was changed: it was decided on before".to_owned(),
    };
    print_text(outcome)
}
