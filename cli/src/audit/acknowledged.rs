//! Compares acknowledged orders and coupons with the stored ones: each exists, and no order has gone back to an earlier
//! state.

use super::{hex, named::Named, sources::Sources, verdict::Audit};
use crate::acknowledged::{Acknowledged, Shown};
use anyhow::Context;
use sqlx::Row;
use stampede_vocab::{CouponId, OrderId};
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

/// Orders or coupons of one query.
const PAGE: usize = 1_000;

/// Selects the orders of these ids, which are hex in JSON.
const ORDERS: &str = "SELECT o.id, o.state, o.version FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(32) PATH '$')) m \
     STRAIGHT_JOIN {order}.orders o ON o.id = UNHEX(m.id)";
/// Selects the coupons of these ids, likewise.
const COUPONS: &str = "SELECT c.id FROM JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(32) PATH '$')) m \
     STRAIGHT_JOIN {coupon}.coupons c ON c.id = UNHEX(m.id)";

/// Compares everything that was acknowledged to a buyer.
pub async fn compare(sources: &Sources, file: Option<&Path>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(file) = file else {
        audit.leave_out("what was acknowledged to buyers: give --acknowledged FILE, as simulate wrote it");
        return Ok(());
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let acknowledged: Acknowledged =
        serde_json::from_str(&text).with_context(|| format!("{} is not what simulate writes", file.display()))?;
    audit.figure(4, "orders acknowledged", i64::try_from(acknowledged.orders.len())?);
    audit.figure(4, "coupons acknowledged", i64::try_from(acknowledged.coupons.len())?);
    orders(sources, &acknowledged, audit).await?;
    coupons(sources, &acknowledged, audit).await
}

async fn orders(sources: &Sources, acknowledged: &Acknowledged, audit: &mut Audit) -> anyhow::Result<()> {
    let (mut lost, mut taken_back) = (Named::default(), Named::default());
    let all: BTreeSet<&OrderId> = acknowledged.orders.iter().chain(acknowledged.states.keys()).collect();
    let all: Vec<&OrderId> = all.into_iter().collect();
    for page in all.chunks(PAGE) {
        let mut stored = HashMap::new();
        for row in sources.rows_with(ORDERS, json(page.iter().map(|id| id.as_bytes()))?).await? {
            let shown = Shown { state: row.try_get(1)?, version: row.try_get(2)? };
            stored.insert(OrderId::try_from_bytes(row.try_get(0)?)?, shown);
        }
        for id in page {
            match (stored.get(*id), acknowledged.states.get(*id)) {
                (None, _) => lost.push(id.to_string()),
                (Some(now), Some(shown)) if !shown.may_become(now) => taken_back.push(format!(
                    "{id} ({} in version {} was shown, {} in version {} is stored)",
                    shown.state, shown.version, now.state, now.version
                )),
                (Some(_), _) => {}
            }
        }
    }
    audit.breach(4, "an acknowledged order is lost", lost);
    audit.breach(4, "an acknowledged state of an order is lost", taken_back);
    Ok(())
}

async fn coupons(sources: &Sources, acknowledged: &Acknowledged, audit: &mut Audit) -> anyhow::Result<()> {
    let mut lost = Named::default();
    let all: Vec<&CouponId> = acknowledged.coupons.iter().collect();
    for page in all.chunks(PAGE) {
        let mut stored = BTreeSet::new();
        for row in sources.rows_with(COUPONS, json(page.iter().map(|id| id.as_bytes()))?).await? {
            stored.insert(CouponId::try_from_bytes(row.try_get(0)?)?);
        }
        lost.extend(page.iter().filter(|id| !stored.contains(**id)).map(ToString::to_string));
    }
    audit.breach(4, "an issued coupon is lost", lost);
    Ok(())
}

fn json<'i>(ids: impl Iterator<Item = &'i [u8]>) -> anyhow::Result<String> {
    let ids: Vec<String> = ids.map(hex).collect();
    Ok(serde_json::to_string(&ids)?)
}
