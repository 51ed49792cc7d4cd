//! Compares the provider's records with the payments: every charge that it captured is one of ours, once.

use super::{sources::Sources, verdict::Audit};
use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use sqlx::Row;
use stampede_vocab::PaymentId;
use std::{collections::BTreeMap, time::Duration};

/// Rows of one page of the records.
const PAGE_SIZE: usize = 1_000;
/// Longest wait for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A charge as the provider has it.
#[derive(Debug, Deserialize)]
struct Charge {
    id: String,
    key: String,
    amount_minor: i64,
    status: String,
    refunded_minor: i64,
}

#[derive(Debug, Deserialize)]
struct Page {
    charges: Vec<Charge>,
    has_more: bool,
}

/// Money moved for one payment.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Moved {
    captured: i64,
    refunded: i64,
    charges: i64,
}

/// Compares payment by payment. Notes that it was left out if no provider is given.
pub async fn compare(sources: &Sources, provider_url: Option<&str>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(url) = provider_url else {
        audit.leave_out("the payment provider's records: give --provider-url");
        return Ok(());
    };
    let records =
        read_records(url).await.context("the payment provider's records cannot be read: check --provider-url")?;
    let ours = payments(sources).await?;
    audit.figure(3, "charges that we know of", ours.values().map(|moved| moved.charges).sum());
    audit.figure(3, "charges in the provider's records", records.values().map(|moved| moved.charges).sum());
    let (mut foreign, mut differing, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for (payment, theirs) in &records {
        match ours.get(payment) {
            None => foreign.push(format!("{payment} (captured {})", theirs.captured)),
            Some(our) if theirs.charges > our.charges => {
                twice.push(format!(
                    "{payment} (we know of {} charges, the provider has {})",
                    our.charges, theirs.charges
                ));
            }
            Some(our) if our != theirs => differing.push(format!(
                "{payment} (we captured {} and refunded {}, the provider {} and {})",
                our.captured, our.refunded, theirs.captured, theirs.refunded
            )),
            Some(_) => {}
        }
    }
    let unknown = |(payment, our): (&String, &Moved)| {
        (our.captured > 0 && !records.contains_key(payment)).then(|| format!("{payment} (captured {})", our.captured))
    };
    let unknown = ours.iter().filter_map(unknown).collect();
    audit.breach(3, "the provider charged for a payment that we do not know", foreign);
    audit.breach(3, "the provider moved another sum than we did", differing);
    audit.breach(3, "the provider charged more often than we know of", twice);
    audit.breach(3, "the provider has no charge of a captured payment", unknown);
    Ok(())
}

/// Reads what we captured and refunded. Surplus charges count: they were captured in addition to the payment, and each
/// has a refund of its own. A payment of nothing has no charge at the provider.
async fn payments(sources: &Sources) -> anyhow::Result<BTreeMap<String, Moved>> {
    let rows = sources
        .rows(
            "SELECT p.id, CAST(p.captured_minor + COALESCE(s.captured, 0) AS SIGNED), \
             CAST(p.refunded_minor + COALESCE(s.refunded, 0) AS SIGNED), \
             CAST((p.captured_minor > 0) + COALESCE(s.charges, 0) AS SIGNED) FROM {payment}.payments p \
             LEFT JOIN (SELECT r.payment_id, SUM(r.amount_minor) AS captured, COUNT(*) AS charges, \
             SUM(CASE WHEN r.state = 'REFUNDED' THEN r.amount_minor ELSE 0 END) AS refunded \
             FROM {payment}.refunds r JOIN {payment}.payments q ON q.id = r.payment_id \
             WHERE r.amount_minor > 0 AND r.attempt <> COALESCE(q.captured_attempt, 0) GROUP BY r.payment_id) s ON s.payment_id = p.id",
        )
        .await?;
    rows.iter()
        .map(|row| {
            let payment = PaymentId::try_from_bytes(row.try_get(0)?)?.to_string();
            Ok((payment, Moved { captured: row.try_get(1)?, refunded: row.try_get(2)?, charges: row.try_get(3)? }))
        })
        .collect()
}

/// Reads the provider's records, by the payment in the idempotency key `<payment>:<attempt>`.
async fn read_records(url: &str) -> anyhow::Result<BTreeMap<String, Moved>> {
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut records: BTreeMap<String, Moved> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let from = after.as_ref().map(|id| format!("&after={id}")).unwrap_or_default();
        let page: Page =
            get(&client, &format!("{}/v1/charges?limit={PAGE_SIZE}{from}", url.trim_end_matches('/'))).await?;
        after = page.charges.last().map(|charge| charge.id.clone());
        for charge in page.charges.into_iter().filter(|charge| charge.status == "captured") {
            let payment = charge.key.split(':').next().unwrap_or_default().to_owned();
            let moved = records.entry(payment).or_default();
            moved.captured += charge.amount_minor;
            moved.refunded += charge.refunded_minor;
            moved.charges += 1;
        }
        if !page.has_more {
            return Ok(records);
        }
    }
}

async fn get<T: DeserializeOwned>(client: &Client<HttpConnector, Empty<Bytes>>, url: &str) -> anyhow::Result<T> {
    let answer = async {
        let response = client.get(url.parse()?).await?;
        ensure!(response.status().is_success(), "{url} answered {}", response.status());
        let body = Limited::new(response.into_body(), 16 * 1024 * 1024).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::time::timeout(PAGE_TIMEOUT, answer).await.with_context(|| format!("{url} did not answer in time"))?
}
