//! `stampede payments settle`: writes a decision on an anomaly down, with who and why, and waits until the payment
//! service has carried it out.

use super::anomaly::{self, Anomaly, Verdict};
use crate::{
    messages::{
        decide::{Act, Record},
        schemas::{Schemas, Server},
    },
    output::{Output, print_json, print_text},
};
use anyhow::{Context, ensure};
use rand::random_range;
use serde::Serialize;
use sqlx::AssertSqlSafe;
use stampede_db::DbError;
use stampede_vocab::{Service, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Time between two polls, less up to half of it.
const POLL_INTERVAL: Duration = Duration::from_millis(400);

/// Decide on an anomaly.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede payments settle 17 --as retry
  stampede payments settle 17 --as declined --yes --why 'given back by hand at the provider, re_81'
  stampede payments settle 18 --as noted --yes --why 'a goodwill refund of a part'

Without --yes nothing is changed: it says what would be. Nothing approves a charge but the provider's own answer, for which
`--as retry` asks again. Look at the provider's records before `--as declined` and `--as refunded`: there is no way back.

Exit code 0: it is settled, or nothing was to be changed. 1: it was not carried out before the deadline, or somebody else
had decided, or the provider has told the end before. 2: it could not do its work.")]
pub struct Args {
    /// Which: an id that `payments list` prints
    #[arg(value_name = "ID")]
    id: i64,

    /// What is decided
    #[arg(long = "as", value_enum, value_name = "DECISION")]
    verdict: Verdict,

    #[command(flatten)]
    act: Act,

    #[command(flatten)]
    server: Server,
}

/// What has become of a decision.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    /// None if it was only said what would be.
    decided: Option<Record>,
    /// Whether it is as it was decided.
    is_settled: bool,
    anomaly: Anomaly,
}

/// Decides, and returns whether that was carried out.
pub async fn run(args: Args, output: Output) -> anyhow::Result<bool> {
    let record = args.act.decision()?;
    let schemas = Schemas::connect(&args.server).await?;
    let found = find(&schemas, args.id).await?;
    if found.state != "OPEN" {
        return report(args.verdict, None, false, found, output).map(|()| false);
    }
    ensure!(
        found.verdicts.contains(&args.verdict),
        "--as {} does not fit anomaly {}: see `stampede payments show {}`",
        args.verdict.as_str().to_ascii_lowercase(),
        args.id,
        args.id
    );
    let Some(record) = record else {
        return report(args.verdict, None, false, found, output).map(|()| true);
    };
    if !decide(&schemas, args.id, args.verdict, &record).await? {
        let now = find(&schemas, args.id).await?;
        return report(args.verdict, None, false, now, output).map(|()| false);
    }
    let now = wait(&schemas, &args).await?;
    let is_settled = now.is_settled_as(args.verdict);
    report(args.verdict, Some((*record).clone()), is_settled, now, output)?;
    Ok(is_settled || args.act.no_wait)
}

async fn find(schemas: &Schemas, id: i64) -> anyhow::Result<Anomaly> {
    let found = anomaly::find(schemas, id).await?;
    found.with_context(|| format!("there is no anomaly {id}: see `stampede payments list`"))
}

/// Writes the decision down. Returns whether nobody else was faster.
async fn decide(schemas: &Schemas, id: i64, verdict: Verdict, record: &Arc<Record>) -> anyhow::Result<bool> {
    let sql: Arc<str> = format!(
        "UPDATE {} SET state = 'DECIDED', verdict = ?, decided_by = ?, decided_why = ?, decided_us = ? \
         WHERE id = ? AND state = 'OPEN'",
        schemas.table(Service::Payment, "anomalies")
    )
    .into();
    let (record, at_us) = (record.clone(), Timestamp::now().micros());
    let decided = schemas.db.transact("decide_on_anomaly", move |conn| {
        let (sql, record) = (sql.clone(), record.clone());
        Box::pin(async move {
            let update = sqlx::query(AssertSqlSafe(sql.to_string()));
            let update = update.bind(verdict.as_str()).bind(&record.by).bind(&record.why).bind(at_us).bind(id);
            Ok::<_, DbError>(update.execute(conn).await?.rows_affected())
        })
    });
    Ok(decided.await.context("no decision was written")? == 1)
}

/// Waits until the decision is carried out, or the deadline is over. Returns how it stands then.
async fn wait(schemas: &Schemas, args: &Args) -> anyhow::Result<Anomaly> {
    let until = Instant::now() + Duration::from_secs(args.act.deadline_s);
    loop {
        let now = find(schemas, args.id).await?;
        if now.state == "SETTLED" || args.act.no_wait || Instant::now() >= until {
            return Ok(now);
        }
        sleep(POLL_INTERVAL.mul_f64(random_range(0.5..1.0))).await;
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
        (true, false, "SETTLED") => "not carried out: the provider has told the end before".to_owned(),
        (true, false, _) => "decided; the payment service has not carried it out yet".to_owned(),
        (false, _, "OPEN") => format!("would be: {}. Nothing was changed: add --yes --why TEXT", verdict.effect()),
        (false, ..) => "nothing was changed: it was decided on before".to_owned(),
    };
    print_text(outcome)
}
