//! Compares Redis with the stored coupons: each ranked claim has a coupon.

use super::{named::Named, sources::Sources, verdict::Audit};
use sqlx::Row;
use stampede_lua::coupon;
use stampede_vocab::CampaignId;

/// A campaign in the database.
struct Stored {
    campaign: CampaignId,
    coupons: i64,
    last_rank: i64,
}

/// Compares every campaign that Redis knows.
pub async fn compare(sources: &Sources, audit: &mut Audit) -> anyhow::Result<()> {
    let (mut lost, mut again, mut unstored) = (Named::default(), Named::default(), Named::default());
    let (mut ranked, mut compared, mut unknown) = (0, 0, 0);
    for stored in campaigns(sources).await? {
        let Some(progress) = coupon::snapshot(&sources.redis, stored.campaign).await? else {
            unknown += 1;
            continue;
        };
        if progress.pending > 0 {
            unstored.push(format!("{} ({})", stored.campaign, progress.pending));
        }
        if !progress.ready {
            // Redis ranks no claims of it until its stored coupons are loaded.
            unknown += 1;
            continue;
        }
        let issued = i64::from(progress.issued);
        ranked += issued;
        compared += stored.coupons;
        if stored.coupons < issued {
            lost.push(format!("{} (ranked {issued}, stored {})", stored.campaign, stored.coupons));
        }
        if stored.last_rank > issued {
            again.push(format!("{} (ranked {issued}, last stored {})", stored.campaign, stored.last_rank));
        }
    }
    audit.figure(4, "claims ranked in Redis", ranked);
    audit.figure(4, "of them stored", compared);
    if unknown > 0 {
        audit.leave_out(format!(
            "{unknown} campaigns with Redis, which has forgotten them, has none of them yet, or is loading them anew"
        ));
    }
    audit.breach(4, "a claim was ranked, but its coupon is not stored", lost);
    audit.breach(2, "Redis would give a rank again", again);
    audit.breach(5, "a claim is neither stored nor refused", unstored);
    Ok(())
}

/// Returns the claims that are ranked and not stored yet, as lines for the reader.
pub async fn pending(sources: &Sources) -> anyhow::Result<Vec<String>> {
    let mut moving = Vec::new();
    for stored in campaigns(sources).await? {
        if let Some(progress) = coupon::snapshot(&sources.redis, stored.campaign).await?
            && progress.pending > 0
        {
            moving.push(format!("{} claims of {}", progress.pending, stored.campaign));
        }
    }
    Ok(moving)
}

async fn campaigns(sources: &Sources) -> anyhow::Result<Vec<Stored>> {
    let rows = sources
        .rows(
            "SELECT c.id, COUNT(p.id), CAST(COALESCE(MAX(p.rank_no), 0) AS SIGNED) FROM {coupon}.campaigns c \
             LEFT JOIN {coupon}.coupons p ON p.campaign_id = c.id GROUP BY c.id",
        )
        .await?;
    rows.iter()
        .map(|row| {
            let campaign = CampaignId::try_from_bytes(row.try_get(0)?)?;
            Ok(Stored { campaign, coupons: row.try_get(1)?, last_rank: row.try_get(2)? })
        })
        .collect()
}
