//! `stampede payments settle --kind`: retries all charges and refunds that are parked for one reason, as after a minute
//! in which a proxy answered for the provider.

use super::{
    anomaly::{self, Anomaly, Verdict, anomalies_table},
    settle::{Args, decide, pause},
};
use crate::{
    messages::{decide::Record, schemas::Schemas},
    output::{Output, print_json, print_text},
};
use anyhow::ensure;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// The kinds for which charges and refunds are parked.
pub const PARKED_KINDS: [&str; 6] = ["REFUSED", "WRONG_AMOUNT", "UNKNOWN_STATE", "FAILED", "KEY_EXPIRED", "NO_ANSWER"];

/// The result of a decision on many.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    kind: String,
    /// Number of anomalies.
    found: usize,
    /// There are more of this kind.
    has_more: bool,
    /// None if nothing was changed.
    decided: Option<Record>,
    /// Number of those that were carried out as decided.
    settled: usize,
    anomalies: Vec<Anomaly>,
}

/// Decides. Returns whether all was carried out.
pub async fn run(args: &Args, kind: &str, output: Output) -> anyhow::Result<bool> {
    let verdict = args.verdict;
    ensure!(verdict == Verdict::Retry, "--kind goes with --as retry alone: whatever else is decided, is one by one");
    let record = args.act.decision()?;
    let schemas = Schemas::new(&args.server);
    let (anomalies, has_more) = parked(&schemas, kind, args.limit as usize).await?;
    let found = anomalies.len();
    let kind = kind.to_owned();
    let Some(record) = record.filter(|_| found > 0) else {
        return print(&Report { verdict, kind, found, has_more, decided: None, settled: 0, anomalies }, output)
            .map(|()| true);
    };
    let ids: Vec<i64> = anomalies.iter().map(|one| one.id).collect();
    decide(&schemas, &ids, verdict, &record).await?;
    let anomalies = wait(&schemas, &ids, args).await?;
    let settled = anomalies.iter().filter(|one| one.is_settled_as(verdict)).count();
    let decided = Some((*record).clone());
    print(&Report { verdict, kind, found, has_more, decided, settled, anomalies }, output)?;
    Ok(settled == found || args.act.no_wait)
}

/// Returns the first of those that are parked for this reason, and whether there are more.
async fn parked(schemas: &Schemas, kind: &str, most: usize) -> anyhow::Result<(Vec<Anomaly>, bool)> {
    let mut found = anomaly::read(schemas, |query| {
        query.push("a.state = 'OPEN' AND a.kind = ").push_bind(kind);
        query.push(
            " AND ((a.subject = 'CHARGE' AND t.state = 'PARKED') OR (a.subject = 'REFUND' AND r.state = 'PARKED'))",
        );
        query.push(" ORDER BY a.id LIMIT ").push_bind(most + 1);
    })
    .await?;
    let has_more = found.len() > most;
    found.truncate(most);
    Ok((found, has_more))
}

/// Waits until the decisions are carried out, or the deadline is over. Returns the anomalies as they are then.
async fn wait(schemas: &Schemas, ids: &[i64], args: &Args) -> anyhow::Result<Vec<Anomaly>> {
    let until = Instant::now() + Duration::from_secs(args.act.deadline_s);
    loop {
        let now = anomaly::read(schemas, |query| {
            query.push("a.id IN ").push_list(ids).push(" ORDER BY a.id");
        })
        .await?;
        if now.iter().all(|one| one.state == "SETTLED") || args.act.no_wait || Instant::now() >= until {
            return Ok(now);
        }
        pause().await;
    }
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    if output.json {
        return print_json(report);
    }
    let Report { verdict, kind, found, settled, .. } = report;
    if *found == 0 {
        return print_text(format_args!("nothing is parked as {kind}"));
    }
    print_text(anomalies_table(&report.anomalies))?;
    match report.decided {
        Some(_) => print_text(format_args!("{settled} of {found} settled"))?,
        None => print_text(format_args!(
            "would be, for {found}: {}. Nothing was changed: add --yes --why TEXT",
            verdict.effect()
        ))?,
    }
    if report.has_more { print_text("there are more: do it again for those, or with a higher --limit") } else { Ok(()) }
}
