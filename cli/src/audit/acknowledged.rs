//! Compares what was acknowledged to buyers with what is stored.

use super::{sources::Sources, verdict::Audit};
use anyhow::Context;
use serde::Deserialize;
use sqlx::Row;
use stampede_vocab::{CouponId, OrderId};
use std::{collections::HashSet, path::Path};

/// The file that `simulate --acknowledged` wrote.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledged {
    orders: Vec<OrderId>,
    coupons: Vec<CouponId>,
}

/// Everything that was acknowledged to a buyer is still there.
pub async fn compare(sources: &Sources, file: Option<&Path>, audit: &mut Audit) -> anyhow::Result<()> {
    let Some(file) = file else {
        audit.leave_out("what was acknowledged to buyers: give --acknowledged FILE, as simulate wrote it");
        return Ok(());
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let acknowledged: Acknowledged =
        serde_json::from_str(&text).with_context(|| format!("{} is not what simulate writes", file.display()))?;
    let orders = ids(sources, "SELECT id FROM {order}.orders").await?;
    let coupons = ids(sources, "SELECT id FROM {coupon}.coupons").await?;
    audit.figure(4, "orders acknowledged", i64::try_from(acknowledged.orders.len())?);
    audit.figure(4, "coupons acknowledged", i64::try_from(acknowledged.coupons.len())?);
    let lost =
        acknowledged.orders.iter().filter(|id| !orders.contains(id.as_bytes())).map(ToString::to_string).collect();
    audit.breach(4, "an acknowledged order is lost", lost);
    let lost =
        acknowledged.coupons.iter().filter(|id| !coupons.contains(id.as_bytes())).map(ToString::to_string).collect();
    audit.breach(4, "an issued coupon is lost", lost);
    Ok(())
}

async fn ids(sources: &Sources, sql: &str) -> anyhow::Result<HashSet<Vec<u8>>> {
    sources.rows(sql).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
